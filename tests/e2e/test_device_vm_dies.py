"""A device VM is killed while its client works with all that it emulates, and the client goes on."""

from __future__ import annotations

import time

import pytest
from stage import Shell, Stage, shell_port

pytestmark = pytest.mark.e2e

FRONTENDS = {"virtio-blk": "/dev/vda", "virtio-scsi": "/dev/sda", "sata": "/dev/sdb", "usb": "/dev/sdc"}
PLAIN = dict.fromkeys(FRONTENDS, "")
LAYERED = {
    "virtio-blk": "encryption: {key: {file: key}}, ",
    "virtio-scsi": "format: qcow2, ",
    "sata": "format: qcow2, encryption: {key: {file: key}}, ",
    "usb": "rateLimit: {writes: 1000}, ",
}


def topology(stage: Stage, layers: dict[str, str]) -> str:
    (stage.folder / "key").write_text("correct horse")
    disks = "".join(
        f"    - {{name: {frontend}, class: disk, frontend: {frontend}, "
        f"parameters: {{{layers[frontend]}size: 12MiB, store: {{file: {frontend}.raw}}}}}}\n"
        for frontend in FRONTENDS
    )
    return f"""\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: web}}
spec:
  vm:
    vcpus: 1
    memory: 512MiB
    boot: {{guestImage: test-client}}
    domainXML: "{shell_port(stage.folder / "web.shell")}"
  devices:
{disks}    - {{name: entropy, class: rng}}
    - {{name: gps, class: serial, parameters: {{program: nmea, interval: 100}}}}
"""


@pytest.mark.parametrize(
    ("layers", "killed", "kills"),
    [
        (PLAIN, "web-dvm", 2),
        pytest.param(PLAIN, "web-dvm", 20, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
        # They are in another image than entropy and position.
        pytest.param(LAYERED, "web-dvm-2", 20, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
    ids=["two", "twenty", "layered-twenty"],
)
def test_a_client_goes_on_when_its_device_vm_is_killed(
    stage: Stage, layers: dict[str, str], killed: str, kills: int
) -> None:
    path = stage.folder / "web.yaml"
    path.write_text(topology(stage, layers))
    if layers is LAYERED:
        stage.devicevm("image", "build", "disk", timeout=600)
    # Formats take some seconds of a processor at their first use.
    stage.devicevm("apply", "--timeout", "200", path)
    shell = Shell(stage.folder / "web.shell")
    # A USB disk is there some time after the shell.
    shell.run(f"until test -b {FRONTENDS['usb']}; do sleep 0.1; done")
    booted = shell.run("dmesg -c >/dev/null; cat /proc/sys/kernel/random/boot_id")
    jobs = " ".join(f"--name={name} --filename={device}" for name, device in FRONTENDS.items())
    # All four disks are written and read back for as long as the kills last; entropy and position are read besides.
    shell.run(
        "(until [ -e /tmp/enough ]; do fio --rw=randrw --bs=4k --size=8M --direct=1 --ioengine=libaio --iodepth=2 "
        f"--verify=crc32c --verify_fatal=1 --time_based --runtime=5 --rate_iops=100 {jobs} >/tmp/fio 2>&1 || "
        "{ echo failed >/tmp/fio.end; exit; }; done; echo fine >/tmp/fio.end) & "
        "(while dd if=/dev/hwrng bs=16 count=1 2>/dev/null; do echo; done | "
        "while read -r line; do count=$((count + 1)); echo $count >/tmp/entropy; done) & "
        "stty -F /dev/ttyS1 raw -echo; (while read -r line; do echo $line >/tmp/position; done </dev/ttyS1) & "
    )
    for _number in range(kills):
        time.sleep(1)
        stage.kill(killed)
        steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"] if step["kind"] != "store"}
        steps.pop("resume/client/web", None)
        assert steps == {f"start/device-vm/{killed}": "reconnect"}
        stage.devicevm("apply", "--timeout", "200", path)
        shell.run("rm -f /tmp/entropy /tmp/position")
        back = "test -s /tmp/entropy && grep -q '^.GP' /tmp/position"
        shell.run(f'for i in $(seq 200); do {back} && back=1 && break; sleep 0.1; done; test -n "$back"; back=')
    shell.run("touch /tmp/enough; for i in $(seq 1200); do test -s /tmp/fio.end && break; sleep 0.1; done", timeout=180)
    assert shell.run("cat /tmp/fio.end").strip() == "fine", shell.run("cat /tmp/fio; dmesg | tail -30")
    assert shell.run("dmesg | grep -iE 'i/o error|reset' || true").strip() == ""
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == booted
    assert "No changes" in stage.devicevm("apply", path).stdout
    stage.devicevm("destroy", "--yes", "--delete-data", path)
