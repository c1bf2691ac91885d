"""What a driver keeps on its host: directories, the lock, backing storage, overlays, console logs, images."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.channel.registry import MAX_ADDRESS
from devicevm.errors import DevicevmError
from devicevm.manifest.topology import Store
from devicevm.planner import naming
from devicevm.vmm import console, stores
from devicevm.vmm import lock as lock_module
from devicevm.vmm.images import images_in
from devicevm.vmm.lock import is_locked, lock, lock_path
from devicevm.vmm.overlay import ensure_overlay
from devicevm.vmm.places import Places, make_runtime, normal_uri, places_of
from devicevm.vmm.programming import Programmer

MIB = 2**20


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("qemu:///system", "qemu:///system"),
        ("qemu+unix:///system", "qemu:///system"),
        ("qemu+unix:///system?socket=/s", "qemu:///system?socket=/s"),
        ("test:///default", "test:///default"),
        ("test+unix:///default", "test+unix:///default"),
        ("qemu:///embed?root=/a/../b", "qemu:///embed?root=/b"),
    ],
)
def test_two_ways_to_write_one_vmm_are_one(uri: str, normal: str) -> None:
    assert normal_uri(uri) == normal
    assert places_of(uri) == places_of(normal)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("qemu+ssh://host/system", "is on another host.*Ansible role"),
        ("qemu://host/system", "is on another host"),
        ("qemu+tls:///system", "is on another host"),
        ("lxc:///system", "no VMM that devicevm knows"),
        ("qemu:///", "no URI of QEMU's"),
        ("qemu:///embed", "does not say where"),
        ("", "no VMM"),
    ],
)
def test_a_vmm_that_is_not_here_is_refused(uri: str, says: str) -> None:
    with pytest.raises(DevicevmError, match=f"(?s){says}"):
        places_of(uri)


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu:///session", "qemu:///embed?root=/" + "r" * 200])
def test_socket_paths_stay_short(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    for user in (0, 4_000_000_000):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        runtime = str(places_of(uri).runtime)
        names = (
            naming.channel_address(runtime, "o" * 63, "d" * 63, "c" * 127),
            naming.control_address(runtime, "o", "d"),
        )
        assert max(len(name.encode()) for name in names) <= MAX_ADDRESS


def test_the_runtime_directory_comes_back_after_a_reboot(tmp_path: Path) -> None:
    places = replace(places_of("test:///default"), runtime=tmp_path / "run" / "12345678")
    for _ in range(2):
        make_runtime(places, None)
        assert stat.S_IMODE(places.runtime.stat().st_mode) == 0o711
        assert stat.S_IMODE(places.private.stat().st_mode) == 0o700
        places.runtime.rmdir()
        places.private.rmdir()
    places.runtime.symlink_to(tmp_path)
    with pytest.raises(DevicevmError, match="is no directory"):
        make_runtime(places, None)


URI = f"qemu:///embed?root=/nowhere/{os.getpid()}"


@pytest.fixture
def lock_uri() -> Iterator[str]:
    yield URI
    for left in (places_of(URI).runtime, places_of(URI).private):
        shutil.rmtree(left, ignore_errors=True)


def test_a_second_apply_says_who_holds_the_lock(lock_uri: str) -> None:
    with (
        lock(lock_uri),
        # What this process was started as, be it pytest or a worker of its.
        pytest.raises(DevicevmError, match=rf"is locked by process {os.getpid()} \(.+\) since 20"),
        lock(lock_uri),
    ):
        pass
    with lock(lock_uri):
        pass


def test_a_lock_on_what_was_removed_is_nobodys(lock_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places, opened, times = places_of(lock_uri), lock_module._open, []

    def is_removed_first(places: Places) -> int:
        file = opened(places)
        if not times:
            lock_path(places).unlink()
        times.append(file)
        return file

    monkeypatch.setattr(lock_module, "_open", is_removed_first)
    with lock(lock_uri, wait=10):
        assert is_locked(places)
    assert len(times) == 2


def test_qemus_user_writes_nowhere_that_root_believes(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can give a directory away")
    places = replace(places_of("qemu:///system"), runtime=tmp_path / "run" / "12345678")
    make_runtime(places, (65534, 65534))
    assert places.runtime.stat().st_uid == 65534
    believed = (lock_path(places), Programmer(places.private / "blocks").notes)
    assert [path for path in believed if path.is_relative_to(places.runtime)] == []
    for above in places.private, places.private.parent:
        assert (above.stat().st_uid, above.stat().st_mode & 0o022) == (0, 0)


def test_a_second_apply_waits_for_the_first(lock_uri: str) -> None:
    taken, done = threading.Event(), []

    def first() -> None:
        with lock(lock_uri):
            taken.set()
            time.sleep(0.3)
            done.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert taken.wait(10)
    with lock(lock_uri, wait=20):
        done.append("second")
    thread.join()
    assert done == ["first", "second"]


def test_the_lock_of_a_killed_apply_is_free(lock_uri: str) -> None:
    head = "import time; from devicevm.vmm.lock import lock"
    code = f"{head}\nwith lock({lock_uri!r}): print(1, flush=True); time.sleep(9)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DevicevmError, match=f"process {process.pid} "), lock(lock_uri):
            pass
        process.kill()
    with lock(lock_uri):
        pass


def test_a_file_store_is_created_once_and_only_grows(tmp_path: Path) -> None:
    store = Store("file", MIB, path=str(tmp_path / "s.img"))
    assert stores.ensure_file(store)
    assert not stores.ensure_file(store)
    status = os.stat(store.path)
    assert (status.st_size, status.st_blocks, stat.S_IMODE(status.st_mode)) == (MIB, 0, 0o600)
    with Path(store.path).open("r+b") as file:
        file.write(b"data")
    assert not stores.ensure_file(replace(store, size=2 * MIB))
    assert Path(store.path).read_bytes()[:5] == b"data\0"
    with pytest.raises(DevicevmError, match="has 2097152 bytes, declared are 1048576: it would lose 1048576"):
        stores.ensure_file(store)
    for _ in range(2):
        stores.delete_file(store)
    assert os.listdir(tmp_path) == []


def test_a_file_store_is_no_way_to_other_files(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"secret")
    link = tmp_path / "link.img"
    link.symlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for path, says in (
        (link, "must be a plain file, not a link"),
        (tmp_path / "fifo", "is no plain file"),
        (tmp_path, "cannot be opened"),
        (tmp_path / "none" / "x", "does not exist"),
        (tmp_path / ("x" * 300) / "x", "cannot be created: File name too long"),
        (tmp_path / ("x" * 300), "cannot be created: File name too long"),
        (Path("/tmp/zero\0"), "has a zero byte"),
        (Path("relative"), "is not absolute"),
        (Path("/tmp/../etc/passwd"), "is not absolute"),
    ):
        with pytest.raises(DevicevmError, match=says):
            stores.ensure_file(Store("file", MIB, path=str(path)))
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "made")
    with pytest.raises(DevicevmError, match="not a link"):
        stores.ensure_file(Store("file", MIB, path=str(dangling)))
    for path in (link, dangling, tmp_path / "fifo"):
        with pytest.raises(DevicevmError, match="is no plain file"):
            stores.delete_file(Store("file", MIB, path=str(path)))
    with pytest.raises(DevicevmError, match="cannot be deleted: File name too long"):
        stores.delete_file(Store("file", MIB, path=str(tmp_path / ("x" * 300))))
    assert victim.read_bytes() == b"secret"
    assert not (tmp_path / "made").exists()


def test_a_block_store_must_be_a_block_device(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path, says in (
        (plain, "no block device"),
        (Path("/dev/null"), "no block device"),
        (tmp_path / "x", "cannot be"),
    ):
        with pytest.raises(DevicevmError, match=says):
            stores.check_block(Store("block", MIB, path=str(path)))


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not there")
def test_an_overlay_is_made_once_and_never_writes_its_image(tmp_path: Path) -> None:
    image, overlay = tmp_path / "base.img", tmp_path / "clients" / "web.qcow2"
    image.write_bytes(b"\0" * MIB)
    ensure_overlay(overlay, str(image))
    made = overlay.stat().st_ino
    ensure_overlay(overlay, str(image))
    assert overlay.stat().st_ino == made
    found = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", overlay]))
    assert (found["backing-filename"], found["backing-filename-format"]) == (str(image), "raw")
    with pytest.raises(DevicevmError, match="rests on another file"):
        ensure_overlay(tmp_path / "other.qcow2", str(overlay))
    with pytest.raises(DevicevmError, match="does not exist"):
        ensure_overlay(tmp_path / "other.qcow2", str(tmp_path / "none"))


def test_a_console_cannot_hurt_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "console"
    hostile = b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\r\n\x9b31m\xff\x00\x08plain\ttext\n" + "a\u202eb\n".encode()
    log.write_bytes(b"x" * 10**6 + b"\n" + hostile)
    lines = console.tail(str(log), 10)
    assert not any(char < " " and char != "\t" for line in lines for char in line)
    assert lines[-1] == "ab"
    assert lines[-2].endswith("plain\ttext")
    assert max(map(len, lines)) <= console.MAX_LINE
    assert console.tail(str(log), 1) == lines[-1:]
    assert console.tail(str(tmp_path / "none"), 5) == console.tail(str(tmp_path), 5) == console.tail("", 5) == ()


@pytest.mark.parametrize("append", [0, os.O_APPEND], ids=["", "append"])
@pytest.mark.parametrize("holes", [True, False])
def test_a_console_that_is_written_to_for_ever_takes_bounded_room(
    tmp_path: Path, append: int, holes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not holes:
        monkeypatch.setattr(console, "_PUNCH_HOLE", 0x8000)
    log = tmp_path / "web-dvm.console"
    (tmp_path / "other.console").symlink_to("/dev/zero")
    guest = os.open(log, os.O_WRONLY | os.O_CREAT | append)
    try:
        for count in range(4):
            os.write(guest, b"x" * 1023 + b"\n")
            console.bound(tmp_path)
            assert console.tail(str(log), 1)[0].startswith("xxx")
            for _block in range(3 * 1024):
                os.write(guest, b"noise " * 170 + b"\n")
            os.write(guest, f"line {count}\n".encode())
            console.bound(tmp_path)
            assert log.stat().st_blocks * 512 <= console.KEPT + 8192
            assert console.tail(str(log), 1) == ((f"line {count}",) if holes else ())
    finally:
        os.close(guest)


def test_an_image_is_the_build_that_its_name_leads_to(tmp_path: Path) -> None:
    build = tmp_path / "base-0123"
    build.mkdir()
    facts = {"name": "base", "digest": "0123", "arch": "x86_64", "kernelVersion": "6.1", "commandLine": "quiet"}
    (build / "image.json").write_text(json.dumps(facts))
    (tmp_path / "base").symlink_to("base-0123")
    assert images_in(tmp_path) == ()
    for name in ("kernel", "initramfs"):
        (build / name).touch()
    (image,) = images_in(tmp_path)
    assert (image.name, image.digest, image.kernel) == ("base", "0123", str(build / "kernel"))
    (build / "image.json").write_text("[]")
    assert images_in(tmp_path) == images_in(tmp_path / "none") == ()
