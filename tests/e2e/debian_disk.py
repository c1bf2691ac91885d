"""A whole disk image of Debian's: its own boot loader (GRUB), kernel, initramfs and init, from its own packages.

In it are a program that knows nothing of devicevm, and devicevm's agent, which runs where it has a control port.
Made once, and kept in the cache; nothing is mounted.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from devicevm.cache import cache_folder
from devicevm.cli.data import data
from devicevm.cli.imagebuild import build_agent
from devicevm.guest.compile import sources_of

PACKAGES = ("sysvinit-core", "udev", "linux-image-cloud-amd64", "initramfs-tools", "grub-pc-bin", "grub-common")
ROOT = 640 << 20
START = 1 << 20  # where the partition begins: GRUB is before it
SECTOR = 512

METER = r"""#!/bin/sh
# Answers `read` with a voltage, in the unit that the device's command in the configuration names; `boots` with how
# often this disk has seen it start.
mount -o remount,rw /
echo once >>/var/boots
modprobe qemu_fw_cfg
unit=$(base64 -d /sys/firmware/qemu_fw_cfg/by_name/opt/org.devicevm/config/raw | sed 's/.*"command":\["\([^"]*\).*/\1/')
count=4200
exec 3<>"$1"
while :; do
  if read -r word <&3; then
    case $word in
    read) count=$((count + 1)) && echo "$count $unit" >&3 ;;
    boots) wc -l </var/boots >&3 ;;
    esac
  else
    sleep 0.1 # nobody is connected
  fi
done
"""
INSTRUMENTS = r"""#!/bin/sh
mount -t devtmpfs dev /dev
modprobe virtio_console
until grep -q . /sys/class/virtio-ports/*/name 2>/dev/null; do sleep 0.1; done
sleep 0.5 # the other ports follow
if grep -qx org.devicevm.control /sys/class/virtio-ports/*/name; then
  exec /usr/sbin/devicevm-agent service
fi
for port in /sys/class/virtio-ports/*; do
  /usr/local/bin/meter "/dev/${port##*/}" &
done
wait
"""
# An appliance: of Debian's own boot there is nothing but this, since each of its scripts takes a second here.
INITTAB = "id:2:initdefault:\nin:2:respawn:/usr/local/sbin/instruments\n"
GRUB = "linux {kernel} root=/dev/vda1 ro console=ttyS0 {quick}\ninitrd {initrd}\nboot\n"
QUICK = "quiet mitigations=off tsc=reliable no_timer_check nokaslr audit=0 lsm= cryptomgr.notests"
"""Kernel arguments that make a guest without hardware virtualisation faster."""
MODULES = "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n"
"""All that the initramfs needs."""


def why_not() -> str:
    """Why such a disk cannot be made here; empty when it can."""
    if platform.freedesktop_os_release().get("ID") != "debian" or platform.machine() != "x86_64":
        return "needs Debian on x86_64"
    missing = [name for name in ("debootstrap", "mkfs.ext4", "qemu-img") if not shutil.which(name)]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "needs root"


def debian_disk() -> Path:
    """The disk image, a qcow2 file."""
    folder = cache_folder() / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    content = b"".join(path.read_bytes() for path in (Path(__file__), *sources_of("agent", data("guest"))))
    disk = folder / f"debian-{hashlib.sha256(content).hexdigest()[:12]}.qcow2"
    if not disk.exists():
        for old in folder.glob("debian-*.qcow2"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _make(_bootstrapped(folder), Path(work)).rename(disk)
    return disk


def _bootstrapped(folder: Path) -> Path:
    """What debootstrap makes of the packages."""
    root = folder / f"bookworm-{hashlib.sha256(repr((PACKAGES, MODULES)).encode()).hexdigest()[:12]}"
    if not root.exists():
        half = root.with_suffix(".new")
        shutil.rmtree(half, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", half, _mirror())
        for name in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(half / name)
        # What udev would load for each processor, and what the initramfs would look for: each costs seconds here.
        for name in ("kvm", "crypto"):
            for modules in (half / "lib/modules").glob(f"*/kernel/arch/x86/{name}"):
                shutil.rmtree(modules)
        for name in ("hooks/udev", "scripts/init-top/udev", "scripts/init-bottom/udev"):
            (half / "usr/share/initramfs-tools" / name).unlink()
        (half / "etc/initramfs-tools/modules").write_text(MODULES)
        (half / "etc/initramfs-tools/conf.d/small").write_text("MODULES=list\n")
        _run("chroot", half, "update-initramfs", "-u")
        half.rename(root)
    return root


def _mirror() -> str:
    """Where this machine has its own packages from."""
    said = _run("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)")
    found = [line.split() for line in said.splitlines() if line.startswith("Debian bookworm main ")]
    return found[0][3] if found else "http://deb.debian.org/debian"


def _make(bare: Path, work: Path) -> Path:
    root = work / "root"
    _run("cp", "-a", "--reflink=auto", bare, root)
    build_agent(root / "usr/sbin/devicevm-agent", arch="x86_64")
    _put(root / "usr/local/bin/meter", METER)
    _put(root / "usr/local/sbin/instruments", INSTRUMENTS)
    (root / "etc/inittab").write_text(INITTAB)
    (root / "etc/fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n")
    kernel, initrd = (
        next((root / "boot").glob(pattern)).relative_to(root) for pattern in ("vmlinuz-*", "initrd.img-*")
    )
    (root / "boot/grub").mkdir(exist_ok=True)
    (root / "boot/grub/grub.cfg").write_text(GRUB.format(kernel=f"/{kernel}", initrd=f"/{initrd}", quick=QUICK))
    modules = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
    grub = ("grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", "/boot/core.img", *modules)
    _run("chroot", root, *grub)
    partition = work / "partition"
    with partition.open("wb") as file:
        file.truncate(ROOT)
    # GRUB 2.06 cannot read what newer mke2fs makes by default.
    _run("mkfs.ext4", "-q", "-O", "^metadata_csum_seed,^orphan_file", "-d", root, partition)
    disk = work / "disk"
    _join(disk, root, partition)
    made = work / "disk.qcow2"
    _run("qemu-img", "convert", "-O", "qcow2", disk, made)
    return made


def _join(disk: Path, root: Path, partition: Path) -> None:
    """Boot sector with the table of partitions, GRUB's core behind it, and the partition."""
    boot = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", START // SECTOR, ROOT // SECTOR)
    with disk.open("wb") as file:
        file.write(boot[:446] + entry + bytes(48) + b"\x55\xaa")
        file.write((root / "boot/core.img").read_bytes())
    _run("dd", f"if={partition}", f"of={disk}", "bs=1M", f"seek={START >> 20}", "conv=notrunc,sparse", "status=none")
    with disk.open("r+b") as file:
        file.truncate(START + ROOT)


def _put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _run(*command: str | Path) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        list(map(str, command)), env=environment, check=False, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout
