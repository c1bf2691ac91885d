"""Domains as somebody else would make them, by virsh alone."""

from __future__ import annotations

from stage import Stage

THEIRS = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>384</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initramfs}</initrd><cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    {ports}
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    <serial type='null'/>
    <channel type='unix'>
      <source mode='bind' path='{shell}'/><target type='virtio' name='org.devicevm.shell'/>
    </channel>
    {more}
    <video><model type='none'/></video>
  </devices>
</domain>
"""
# As people keep them for hot-plug.
SPARE = "<controller type='pci' index='0' model='pcie-root'/>" + "".join(
    f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, 12)
)


def define(stage: Stage, name: str, image: str, machine: str = "q35", more: str = "") -> None:
    """Define a domain that boots an image of the store, with a disk of its own and a shell at NAME.shell."""
    (boot,) = (one for one in stage.json("inventory")["images"] if one["name"] == image)
    disk = stage.folder / f"{name}.img"
    disk.write_bytes(name.encode() * 4096)
    disk.chmod(0o666)
    path = stage.folder / f"{name}.xml"
    path.write_text(
        THEIRS.format(
            name=name,
            machine=machine,
            kernel=boot["kernel"],
            initramfs=boot["initramfs"],
            command_line=boot["commandLine"],
            ports=SPARE if machine == "q35" else "",
            disk=disk,
            shell=stage.folder / f"{name}.shell",
            more=more,
        )
    )
    stage.virsh("define", str(path))
