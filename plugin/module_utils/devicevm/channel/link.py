"""The `link` channel: a network cable between a NIC of the client and one of the device VM.

Each end is a datagram socket in the file system, and an Ethernet frame is a datagram. There is no connection: either
end may go and come back, and the other goes on. Who may send is a matter of file permissions. libvirt knows links over
UDP only, to which anybody on the host can send, guests with user-mode networking included; so these are QEMU's own
words (qemu(1), `-netdev dgram`, since 7.2).
"""

from __future__ import annotations

LINK = "link"
"""What this kind of channel is called."""

SLOT = 0x18
"""The first PCI slot of a device VM's links; libvirt begins at the other end. Eight to a slot: 64 in all."""
FUNCTIONS = 8

_LOCAL = "local.path="


def client_end(address: str) -> str:
    """The client's socket of the link whose device VM's is at `address`."""
    return f"{address.removesuffix('.sock')}-c.sock"


def device_vm_arguments(address: str, port: str, number: int, bus: str) -> tuple[str, ...]:
    """The device VM's end, as QEMU's arguments: link `number`, whose NIC has the hardware address `port`."""
    slot, function = divmod(number, FUNCTIONS)
    place = f"bus={bus},addr={SLOT + slot:#x}.{function},multifunction=on"
    return (
        "-netdev",
        f"dgram,id=link{number},{_ends(address, client_end(address))}",
        "-device",
        f"virtio-net-pci,netdev=link{number},mac={port},{place},romfile=",
    )


def client_netdev(address: str, name: str) -> tuple[str, ...]:
    """The client's end, as QEMU's arguments: a network back end called `name`, for a NIC to refer to."""
    return ("-netdev", f"dgram,id={name},{_ends(client_end(address), address)}")


def socket_of(argument: str) -> str:
    """The path of the socket that an argument of QEMU's has made for a link; empty for any other argument."""
    found = [word for word in argument.replace(",,", "\0").split(",") if word.startswith(_LOCAL)]
    return found[0].removeprefix(_LOCAL).replace("\0", ",") if found and argument.startswith("dgram,") else ""


def _ends(local: str, remote: str) -> str:
    # A comma in a value is written twice.
    mine, theirs = (path.replace(",", ",,") for path in (local, remote))
    return f"local.type=unix,{_LOCAL}{mine},remote.type=unix,remote.path={theirs}"
