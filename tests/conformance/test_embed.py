"""The embedded VMM: one process at a time, domains that outlive it, and many openings in one process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.vmm.libvirt.embed import MAX_OPENINGS, _share_knowledge
from devicevm.vmm.registry import open_driver
from guests import tiny_kernel

pytest.importorskip("libvirt", reason="python3-libvirt is not there for this Python")
pytestmark = [
    pytest.mark.libvirt,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is not there"),
]

# A process of its own, for a root is one process's at a time and its domains must outlive it.
START = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from devicevm.vmm.registry import open_driver
from guests import device_vm
driver = open_driver({uri!r})
spec = device_vm(str(driver.places.runtime), "tcg", Path({kernel!r}))
driver.define(spec)
driver.start(spec.name)
print("started", flush=True)
{then}
"""
LOOP = """
import sys
from devicevm.vmm.registry import open_driver
for _ in range({times}):
    with open_driver({uri!r}) as driver:
        print([seen.active for seen in driver.observe()])
"""
LEFT = """
from devicevm.vmm.console import MAX_LOG
from devicevm.vmm.places import make_logs, make_runtime, places_of
from devicevm.vmm.registry import open_driver
places = places_of({uri!r})
make_runtime(places, None)
make_logs(places)
secret, log = places.runtime / "0011.secret", places.logs / "web-dvm.console"
secret.write_text("of an apply that was killed")
log.write_bytes(b"noise\\n" * MAX_LOG)
with open_driver({uri!r}) as driver:
    print(secret.exists(), log.stat().st_blocks * 512 > MAX_LOG)
"""


def test_what_is_known_of_qemu_is_known_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a", "b"):
        _share_knowledge(tmp_path / name)
    known = tmp_path / "a/cache/qemu/capabilities"
    (known / "qemu.xml").write_text("all")
    assert (tmp_path / "b/cache/qemu/capabilities/qemu.xml").read_text() == "all"
    # Whoever deletes the cache, or has a directory of his own there already, is not in the way.
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "c/cache/qemu/capabilities").mkdir(parents=True)
    for name in ("a", "c"):
        _share_knowledge(tmp_path / name)
    assert known.is_dir() and not list(known.iterdir())
    assert not (tmp_path / "c/cache/qemu/capabilities").is_symlink()


@pytest.fixture
def work() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="devicevm-", dir="/tmp"))
    path.chmod(0o755)
    (path / "kernel").write_bytes(tiny_kernel())
    (path / "kernel").chmod(0o644)
    yield path
    ends = "with open_driver({!r}) as d:\n for s in d.observe(): d.stop(s.name); d.undefine(s.name)"
    code = "from devicevm.vmm.registry import open_driver\n" + ends.format(uri(path))
    subprocess.run([sys.executable, "-c", code], check=True)
    shutil.rmtree(path)


def uri(work: Path) -> str:
    return f"qemu:///embed?root={work}/embed"


def starting(work: Path, then: str) -> str:
    return START.format(tests=str(Path(__file__).parent), uri=uri(work), kernel=str(work / "kernel"), then=then)


def test_a_second_process_is_told_who_has_the_vmm_and_can_wait(work: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", starting(work, "time.sleep(60)")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        with pytest.raises(DevicevmError, match=rf"is in use by process {process.pid} \(.*python"):
            open_driver(uri(work))
        assert time.monotonic() - began < 5
        with pytest.raises(DevicevmError, match="is in use by"):
            open_driver(uri(work), wait=0.3)
        process.kill()
    # It was killed, and its domain runs on: the next process has both.
    said = subprocess.check_output([sys.executable, "-c", LOOP.format(times=1, uri=uri(work))], text=True)
    assert said == "[True]\n"


def test_a_process_opens_it_as_often_as_it_likes(work: Path) -> None:
    subprocess.run([sys.executable, "-c", starting(work, "driver.close()")], check=True, stdout=subprocess.DEVNULL)
    times = 2 * MAX_OPENINGS + 5
    done = subprocess.run(
        [sys.executable, "-c", LOOP.format(times=times, uri=uri(work))], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["[True]"] * times
    assert done.stderr == ""


def test_two_drivers_in_one_process_share_it(work: Path) -> None:
    code = starting(
        work,
        "other = open_driver(driver.places.uri)\ndriver.close()\nprint(other.is_active(spec.name))\nother.close()",
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "started\nTrue\n"


def test_who_opens_it_clears_away_what_others_have_left(work: Path) -> None:
    said = subprocess.check_output([sys.executable, "-c", LEFT.format(uri=uri(work))], text=True)
    assert said == "False False\n"


def test_after_the_host_has_booted_nobody_is_taken_for_a_domain_that_ran_before(work: Path) -> None:
    subprocess.run([sys.executable, "-c", starting(work, "driver.close()")], check=True, stdout=subprocess.DEVNULL)
    (status,) = (work / "embed" / "run" / "qemu").glob("*.xml")
    number = status.with_suffix(".pid").read_text().strip()
    os.kill(int(number), signal.SIGKILL)
    # The number is another's by now, and the directory, which is on a disk, tells of it as before.
    with subprocess.Popen(["sleep", "60"]) as stranger:
        status.write_text(status.read_text().replace(f"pid='{number}'", f"pid='{stranger.pid}'"))
        (work / "embed" / "boot").write_text("another boot\n")
        said = subprocess.check_output([sys.executable, "-c", LOOP.format(times=1, uri=uri(work))], text=True)
        assert said == "[False]\n"
        assert stranger.poll() is None, "it was killed"
        stranger.kill()
