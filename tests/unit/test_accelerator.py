"""The accelerator probe: order, cache, processes that must end; and for real where a kernel can be found."""

from __future__ import annotations

import os
import select
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.vmm.accelerator import ProbeGuest, boots_with, choose_accelerator, verdict_key

BOTH = ("kvm", "tcg")


class Boots:
    """A `boots` that says what it is told to, and what it was asked."""

    def __init__(self, works: bool) -> None:
        self.works = works
        self.asked: list[str] = []

    def __call__(self, name: str) -> bool:
        self.asked.append(name)
        return self.works


@pytest.mark.parametrize(("works", "chosen"), [(True, "kvm"), (False, "tcg")])
def test_auto_probes_once(tmp_path: Path, works: bool, chosen: str) -> None:
    cache, boots = tmp_path / "new" / "verdict.json", Boots(works)
    for _ in range(3):
        assert choose_accelerator("auto", BOTH, boots, cache, "boot-1 7.2") == chosen
    assert boots.asked == ["kvm"]
    assert [file.name for file in cache.parent.iterdir()] == ["verdict.json"], "no temporary file is left"
    # The host was started anew, or QEMU was updated.
    assert choose_accelerator("auto", BOTH, Boots(not works), cache, "boot-2 7.2") != chosen


def test_nothing_is_probed_without_need(tmp_path: Path) -> None:
    boots = Boots(True)
    assert choose_accelerator("auto", ("tcg",), boots, tmp_path / "c", "k") == "tcg"
    assert choose_accelerator("auto", ("xen",), boots, tmp_path / "c", "k") == "xen"
    assert choose_accelerator("tcg", BOTH, boots, tmp_path / "c", "k") == "tcg"
    assert boots.asked == []


@pytest.mark.parametrize(
    ("wanted", "offered", "words"),
    [
        ("kvm", ("tcg",), "offers tcg"),
        ("kvm", BOTH, "did not become ready"),
        ("tcg", (), "offers none"),
        ("auto", ("kvm",), "no accelerator works"),
        ("auto", (), "offers none"),
    ],
)
def test_what_does_not_work_is_an_error(tmp_path: Path, wanted: str, offered: tuple[str, ...], words: str) -> None:
    with pytest.raises(DevicevmError, match=words):
        choose_accelerator(wanted, offered, Boots(False), tmp_path / "c", "k")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "k"}', '{"key": "k", "kvm": "yes"}', "\xff"])
def test_a_broken_cache_is_probed_again(tmp_path: Path, content: str) -> None:
    cache, boots = tmp_path / "c", Boots(True)
    cache.write_bytes(content.encode("latin-1"))
    assert choose_accelerator("auto", BOTH, boots, cache, "k") == "kvm"
    assert boots.asked == ["kvm"]


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert choose_accelerator("auto", BOTH, Boots(True), tmp_path / "file" / "c", "k") == "kvm"


def test_key(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("abc\n")
    assert verdict_key("7.2.0", tmp_path / "boot_id") == "abc 7.2.0"
    with pytest.raises(DevicevmError, match="boot id"):
        verdict_key("7.2.0", tmp_path / "none")


@pytest.fixture
def emulator(tmp_path: Path) -> Callable[[str], str]:
    """Makes a script that stands in for QEMU; its pid is in the file `pid`."""

    def make(body: str) -> str:
        script = tmp_path / "emulator"
        script.write_text(f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\n{body}\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


@pytest.fixture
def guest(tmp_path: Path) -> ProbeGuest:
    for name in ("kernel", "initramfs"):
        (tmp_path / name).write_text("")
    return ProbeGuest(tmp_path / "kernel", tmp_path / "initramfs", "quiet", expect=b"ready")


def is_gone(tmp_path: Path) -> bool:
    return not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        ("printf 'SeaBIOS re'; sleep 0.1; echo ady; exec sleep 60", True),
        ('read line; [ "$line" = hello ] && echo ready; exec sleep 60', True),
        ("echo booting; exec sleep 60", False),
        ("exit 1", False),
    ],
)
def test_boots_with(tmp_path: Path, emulator: Callable[[str], str], guest: ProbeGuest, body: str, ready: bool) -> None:
    asking = ProbeGuest(guest.kernel, guest.initramfs, "", expect=b"ready", port="control", ask=b"hello\n")
    assert boots_with("kvm", asking, emulator=emulator(body), timeout=1) is ready
    assert is_gone(tmp_path)


def test_output_is_bounded(tmp_path: Path, emulator: Callable[[str], str], guest: ProbeGuest) -> None:
    start = time.monotonic()
    assert not boots_with("kvm", guest, emulator=emulator("exec cat /dev/zero"), timeout=60)
    assert time.monotonic() - start < 30
    assert is_gone(tmp_path)


def test_the_guest_ends_whatever_happens(
    tmp_path: Path, emulator: Callable[[str], str], guest: ProbeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(select, "select", interrupt)
    with pytest.raises(KeyboardInterrupt):
        boots_with("kvm", guest, emulator=emulator("exec sleep 60"))
    assert is_gone(tmp_path)


def test_what_cannot_be_tried_is_no_verdict(guest: ProbeGuest, tmp_path: Path) -> None:
    with pytest.raises(DevicevmError, match="does not start"):
        boots_with("kvm", guest, emulator=str(tmp_path / "none"))
    with pytest.raises(DevicevmError, match="is not there"):
        boots_with("kvm", ProbeGuest(tmp_path / "none", guest.initramfs, ""))


def kernel() -> Path | None:
    """The kernel of DEVICEVM_TEST_KERNEL, or the newest in /boot."""
    if named := os.environ.get("DEVICEVM_TEST_KERNEL"):
        return Path(named)
    return max(Path("/boot").glob("vmlinuz-*"), default=None)


def initramfs(busybox: Path) -> bytes:
    """A cpio archive (newc) with busybox and an init that says it runs. The kernel brings /dev/console itself."""
    init = b"#!/bin/busybox sh\n/bin/busybox echo probe-$((40 + 2)) > /dev/console\nexec /bin/busybox sleep 1000\n"
    archive = b""
    files = [("bin", 0o040755, b""), ("bin/busybox", 0o100755, busybox.read_bytes()), ("init", 0o100755, init)]
    for number, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")]):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += head.ljust(-(-len(head) // 4) * 4, b"\0") + data.ljust(-(-len(data) // 4) * 4, b"\0")
    return archive


@pytest.mark.e2e
@pytest.mark.slow
def test_for_real(tmp_path: Path) -> None:
    """TCG boots a stock kernel; KVM does or does not, and `auto` chooses accordingly, probing once.

    DEVICEVM_TEST_ACCELERATOR says which one must be chosen on this machine.
    """
    image, busybox, qemu = kernel(), shutil.which("busybox"), shutil.which("qemu-system-x86_64")
    if not (image and busybox and qemu):
        pytest.skip("needs qemu-system-x86_64, a static busybox and a kernel in /boot or in DEVICEVM_TEST_KERNEL")
    (tmp_path / "initramfs").write_bytes(initramfs(Path(busybox)))
    guest = ProbeGuest(image, tmp_path / "initramfs", "console=ttyS0 quiet", expect=b"probe-42")
    asked = []

    def boots(name: str) -> bool:
        asked.append(name)
        return boots_with(name, guest, timeout=15)

    assert boots_with("tcg", guest, timeout=60)
    chosen = {choose_accelerator("auto", BOTH, boots, tmp_path / "verdict", verdict_key("test")) for _ in range(2)}
    assert asked == ["kvm"] and chosen <= {"kvm", "tcg"} and len(chosen) == 1
    if expected := os.environ.get("DEVICEVM_TEST_ACCELERATOR"):
        assert chosen == {expected}
