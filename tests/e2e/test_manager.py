"""Device VMs that come up with their client, whoever starts it, and come back when they die: seen with virsh alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conformance.guests import tiny_kernel
from manager_stage import CLIENT, DISK, ECHO, ManagedStage, managed_stage, roomy_host
from private_libvirtd import why_not
from stage import Shell, shell_port, until

pytestmark = pytest.mark.e2e

GRACE = 2.0
STORAGE = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: storage}
spec: {serves: {clients: [a, b]}}
"""
REAL = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: real}
spec:
  vm:
    memory: 192MiB
    start: request
    boot: {guestImage: client}
    domainXML: "%s"
  devices: [%s]
"""
SECONDS = 120.0


@pytest.fixture(scope="module")
def managed(images: None) -> Iterator[ManagedStage]:
    if reason := why_not():
        pytest.skip(reason)
    with managed_stage("--grace", str(GRACE), "--timeout", "200") as made:
        kernel = made.folder / "kernel"
        kernel.write_bytes(tiny_kernel())
        kernel.chmod(0o644)
        yield made
        assert (made.domains(), made.device_vms(), made.sockets()) == ([], {}, [])
        made.stop_manager()
        assert "on it again" in made.manage("uninstall")


@pytest.fixture
def pair(managed: ManagedStage) -> Iterator[Path]:
    """Two clients that halt at once, on one device VM."""
    kernel = managed.folder / "kernel"
    path = managed.declare("pair", CLIENT % ("a", kernel, DISK), CLIENT % ("b", kernel, ECHO), STORAGE)
    managed.devicevm("apply", path)
    yield path
    managed.devicevm("destroy", "--yes", path)


def states(managed: ManagedStage) -> dict[str, str]:
    return {domain["name"]: domain["state"] for domain in managed.json("status")["domains"]}


def test_device_vms_come_up_with_the_first_client_and_go_after_the_last(managed: ManagedStage, pair: Path) -> None:
    assert states(managed) == {"a": "stopped", "b": "stopped", "storage": "stopped"}
    assert managed.domains() == ["a", "b"], "device VMs are the manager's"
    starting = threading.Thread(target=managed.virsh, args=("start", "a"))
    begun = time.monotonic()
    starting.start()
    # Others look on: libvirt has them wait for the client that starts, and nobody for ever.
    time.sleep(0.3)
    managed.virsh("domstate", "a")
    managed.virsh("list", "--all")
    starting.join(SECONDS)
    assert time.monotonic() - begun < SECONDS and managed.virsh("domstate", "a").strip() == "running"
    first = managed.device_vms()
    assert set(first) == {"storage"}
    managed.virsh("start", "b")
    devices = managed.json("status")["devices"]
    assert {(item["client"], item["state"]) for item in devices} == {("a", "connected"), ("b", "connected")}
    assert "No changes" in managed.devicevm("plan", pair).stdout

    managed.virsh("destroy", "a")
    time.sleep(2 * GRACE)
    assert managed.device_vms() == first
    managed.virsh("destroy", "b")
    until(lambda: not managed.device_vms(), 30)
    assert "No changes" in managed.devicevm("plan", pair).stdout


def test_libvirt_starts_clients_as_it_starts(managed: ManagedStage, pair: Path) -> None:
    managed.virsh("autostart", "b")
    managed.restart_libvirtd()
    until(lambda: "running" in managed.try_virsh("domstate", "b")[1], SECONDS)
    assert set(managed.device_vms()) == {"storage"}
    managed.virsh("autostart", "--disable", "b")
    managed.virsh("destroy", "b")
    until(lambda: not managed.device_vms(), 30)


def test_what_is_declared_to_run_is_started_by_apply_and_its_device_vm_stays(managed: ManagedStage) -> None:
    document = CLIENT % ("always", managed.folder / "kernel", DISK)
    path = managed.declare("always", document.replace("start: request", "start: apply"))
    managed.devicevm("apply", path)
    assert states(managed) == {"always": "running", "always-dvm": "running"}
    first = managed.device_vms()
    managed.virsh("destroy", "always")
    time.sleep(2 * GRACE)
    assert managed.device_vms() == first
    assert [step["id"] for step in managed.json("plan", path)["steps"]] == ["start/client/always"]
    managed.devicevm("destroy", "--yes", path)


def test_a_second_installation_changes_nothing_and_what_is_in_use_stays(managed: ManagedStage) -> None:
    assert managed.manage("install") == "Nothing to do.\n"
    assert "the manager runs" in managed.manage("uninstall", ok=False)


def test_libvirt_s_error_tells_why_a_client_does_not_start(managed: ManagedStage) -> None:
    broken = "{name: x, class: serial, parameters: {command: [/bin/false]}}"
    path = managed.declare("broken", CLIENT % ("broken", managed.folder / "kernel", broken))
    managed.devicevm("apply", path)
    status, words = managed.try_virsh("start", "broken")
    assert status and "broken cannot start: device VM broken-dvm" in words and "broken.x" in words
    until(lambda: not managed.device_vms(), 30)
    assert managed.virsh("domstate", "broken").strip() == "shut off"
    managed.devicevm("destroy", "--yes", path)


def connected(managed: ManagedStage) -> bool:
    """Whether the real client has its device back."""
    return [item["state"] for item in managed.json("status")["devices"] if item["device"] == "echo"] == ["connected"]


def test_a_client_goes_on_when_its_device_vm_or_the_manager_dies(managed: ManagedStage) -> None:
    port = managed.folder / "real.shell"
    data = f"{{name: data, class: disk, parameters: {{size: 32MiB, store: {{file: {managed.folder}/data.raw}}}}}}"
    documents = REAL % (shell_port(port), f"{ECHO}, {data}"), CLIENT % ("other", managed.folder / "kernel", DISK)
    path = managed.declare("real", *documents)
    managed.devicevm("apply", path)
    managed.virsh("start", "real")
    shell = Shell(port)
    assert shell.ask(b"before", 6) == b"before"
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")

    # Long enough to be in the midst of it: nothing of it may fail, and all of it must be there.
    shell.run("dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null")
    shell.run("(dd if=/tmp/data of=/dev/vda bs=4k oflag=direct; echo $? >/tmp/written) >/dev/null 2>&1 & sleep 0.2")
    assert "written" not in shell.run("ls /tmp")
    killed = managed.device_vms()["real-dvm"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: managed.device_vms().get("real-dvm", killed) != killed and connected(managed), SECONDS)
    assert shell.ask(b"again", 5) == b"again"
    assert shell.run("while test ! -s /tmp/written; do sleep 0.2; done; cat /tmp/written") == "0\n"
    shell.run("dd if=/dev/vda bs=4k count=1024 iflag=direct 2>/dev/null | cmp - /tmp/data")

    managed.stop_manager(signal.SIGKILL)
    assert shell.ask(b"alone", 5) == b"alone"
    begun = time.monotonic()
    status, words = managed.try_virsh("start", "other")
    assert status and "devicevm's manager does not run: systemctl start devicevm-manager" in words
    assert time.monotonic() - begun < 30
    refused = managed.devicevm("status", ok=False)
    assert refused.returncode == 1 and "manager does not run" in refused.stderr
    # One that dies while nobody looks is back with the next manager; the others are as they were.
    os.kill(managed.device_vms()["real-dvm"], signal.SIGKILL)
    managed.start_manager("--grace", str(GRACE), "--timeout", "200")
    until(lambda: connected(managed), SECONDS, lambda: (managed.said(), managed.device_vms(), managed.json("status")))
    assert shell.ask(b"later", 5) == b"later"
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    shell.close()
    managed.virsh("destroy", "real")
    until(lambda: not managed.device_vms(), 30)
    managed.devicevm("destroy", "--yes", path)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_twenty_clients_at_once_each_with_a_device_vm_of_its_own(managed: ManagedStage) -> None:
    names = [f"c{number}" for number in range(20)]
    kernel = managed.folder / "kernel"
    path = managed.declare("many", roomy_host(), *(CLIENT % (name, kernel, DISK) for name in names))
    managed.devicevm("apply", path)
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        starting = [pool.submit(managed.try_virsh, "start", name) for name in names]
        time.sleep(2)
        managed.try_virsh("list", "--all")
        managed.try_virsh("domstate", names[7])
        assert [one.result()[1] for one in starting if one.result()[0]] == []
    assert set(managed.device_vms()) == {f"{name}-dvm" for name in names}
    managed.devicevm("destroy", "--yes", path)
