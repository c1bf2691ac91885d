"""What the declared devices ask of device VMs: the first step on the way from topology to plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from ..channel.link import LINK, client_end
from ..channel.region import REGION, guest_path, region_file
from ..domain import Attachment, Channel, Emulator, Secret
from ..frontend.registry import FRONTENDS
from ..manifest.template import chosen, expand, secret_name, template_values
from ..manifest.topology import Client, Consumer, Device, DeviceClass, Topology
from ..part.part import Part, host_kind
from ..quantity import parse_bytes
from ..record import digest
from . import naming
from .code import Code


@dataclass(frozen=True)
class Want:
    """One device that some device VM must emulate, with its class resolved."""

    client: Client
    device: Device
    class_: DeviceClass
    index: int
    id: str
    """`client.device`, as in Emulator.id."""

    @cached_property
    def memory(self) -> int:
        """Bytes of device VM memory that this device accounts for."""
        own = self.class_.memory.per_device
        return parse_bytes(chosen(own, self.device.parameters) if isinstance(own, dict) else own) + self.device.memory

    @cached_property
    def image(self) -> str:
        """The name of the image that its device VM boots."""
        image = self.class_.image
        return chosen(image, self.device.parameters) if isinstance(image, dict) else str(image)

    @cached_property
    def frontend(self) -> str:
        """The front end the client gets: what the device says, else the class's best."""
        return self.device.frontend or self.class_.frontends[0]

    @cached_property
    def channel(self) -> str:
        """The kind of channel: what the device says, else the class's best."""
        return self.device.channel or self.class_.channels[0]

    @cached_property
    def linked(self) -> bool:
        """Whether that is a link: a NIC that its device VM has from the start."""
        return self.channel == LINK

    @cached_property
    def mapped(self) -> bool:
        """Whether that is a region: memory that its device VM has from the start."""
        return self.channel == REGION

    @cached_property
    def joined(self) -> bool:
        """Whether it is with the others of its class on one thing, a network or a region: in another device VM it would
        be on another one."""
        return self.linked or self.mapped

    @cached_property
    def read_only(self) -> bool:
        """Whether its client cannot write to it."""
        store = self.device.store
        return bool(self.device.parameters.get("readOnly")) if self.mapped else bool(store and store.read_only)


@dataclass(frozen=True)
class Home:
    """Where a device is emulated: its device VM and, for one on a link or a region, the number of that there. `size`
    are the region's bytes."""

    device_vm: str
    number: int = 0
    size: int = 0


def wants_of(topology: Topology) -> tuple[Want, ...]:
    """Every declared device, in the topology's order."""
    classes = {class_.name: class_ for class_ in topology.classes}
    return tuple(
        Want(client, device, classes[device.class_], index, f"{client.name}.{device.name}")
        for client in topology.clients
        for index, device in enumerate(client.devices)
    )


@lru_cache(maxsize=2**16)
def _channel(kind: str, runtime_dir: str, owner: str, device_vm: str, device: str, port: str) -> Channel:
    return Channel(kind, naming.channel_address(runtime_dir, owner, device_vm, device), port)


def channel_of(want: Want, owner: str, home: Home, runtime_dir: str) -> Channel:
    """The channel between a device's emulator and its front end, which is one for both."""
    if want.linked:
        return link_channel(owner, home, runtime_dir)
    if want.mapped:
        return region_channel(owner, home.device_vm, want.class_.name, home.size, runtime_dir)
    return _channel(want.channel, runtime_dir, owner, home.device_vm, want.id, want.id)


def link_channel(owner: str, home: Home, runtime_dir: str) -> Channel:
    """A link of a device VM. It is there as long as that runs, whoever has it: so nothing in it is a device's."""
    name = f"link-{home.number}"  # no device's, for those have a dot in them
    port = naming.hardware_address(owner, home.device_vm, name)
    return _channel(LINK, runtime_dir, owner, home.device_vm, name, port)


def region_channel(owner: str, device_vm: str, class_: str, size: int, runtime_dir: str) -> Channel:
    """The region of a class in a device VM: one of its own on each VMM, since hosts' shared memory is everybody's."""
    return Channel(REGION, region_file(digest([runtime_dir, owner, device_vm, class_], 16)), class_, size)


def link_of(want: Want, owner: str, home: Home) -> dict[str, str]:
    """What a template can say of a device's link: the hardware addresses of both its ends, the client's name, and a
    short name of its own. Empty for a device on another kind of channel."""
    if not want.linked:
        return {}
    client, device = want.client.name, want.device
    return {
        "port": link_channel(owner, home, "").port,
        "mac": device.parameters.get("mac") or naming.hardware_address(owner, client, device.name),
        "client": client,
        "name": digest([owner, want.id], 10),
    }


def part_of(want: Want, owner: str, home: Home, runtime_dir: str) -> Part | None:
    """The host part between a device's channel and its client; None where they need none."""
    on_host = want.client.consumer is Consumer.HOST
    given = want.device.part_options
    kind = host_kind(want.class_.protocol, given) if on_host else FRONTENDS[want.frontend].part
    if not kind:
        return None
    name = naming.part_name(owner, home.device_vm, want.id)
    address = want.device.path if on_host else f"{runtime_dir}/{name}.sock"
    options = {**given, "readOnly": "yes"} if on_host and want.read_only else given
    channel = channel_of(want, owner, home, runtime_dir).address
    if kind == "tap":
        options = {**options, "mac": link_of(want, owner, home)["mac"], "socket": client_end(channel)}
    return Part(kind, name, channel, address, options)


def client_channel(want: Want, owner: str, home: Home, runtime_dir: str) -> Channel:
    """The channel as the client finds it: a host part has an address of its own."""
    channel = channel_of(want, owner, home, runtime_dir)
    part = part_of(want, owner, home, runtime_dir)
    return replace(channel, address=part.address) if part else channel


def attachment_of(want: Want, owner: str, home: Home, runtime_dir: str) -> Attachment:
    """A device as its client has it, once it is known which device VM emulates it."""
    return Attachment(
        name=want.device.name,
        class_=want.class_.name,
        frontend=want.frontend,
        channel=client_channel(want, owner, home, runtime_dir),
        device_vm=home.device_vm,
        index=want.index,
        read_only=want.read_only,
        faulty=want.device.faulty,
        path=want.device.path,
        mac=link_of(want, owner, home).get("mac", ""),
    )


def emulator_of(want: Want, owner: str, home: Home, runtime_dir: str, code: Code) -> Emulator:
    """What the device VM has to run for a device: the program of `code`, or the class's, with every blank filled in."""
    device, program = want.device, want.class_.program
    store = code.design or device.store
    # What backs a device without a store is in the device VM's memory: it goes with that VM.
    backed = store is not None or device.memory > 0
    serial = naming.backing_serial(owner, want.client.name, device.name) if backed or device.secrets else ""
    command, ready = program.command, program.ready
    if code.command or not program.fixed:
        region = guest_path(home.number) if want.mapped else ""
        values = template_values(device, serial, link_of(want, owner, home), region)
        command, (ready,) = expand(code.command or command, values), expand((ready,), values)
    return Emulator(
        client=want.client.name,
        name=device.name,
        class_=want.class_.name,
        channel=channel_of(want, owner, home, runtime_dir),
        command=() if code.firmware else command,
        protocol=want.class_.protocol,
        ready=ready,
        expect=program.expect,
        ask=program.ask,
        on_exit=program.on_exit,
        store=store,
        serial=serial if backed else "",
        size=store.size if store else device.memory,
        memory=want.memory,
        consumer=want.client.consumer,
        part=part_of(want, owner, home, runtime_dir),
        base=device.base,
        faulty=device.faulty,
        read_only=want.mapped and want.read_only,
        secrets=tuple(
            Secret(name, path, f"{runtime_dir}/{name}.secret")
            for parameter, path in sorted(device.secrets.items())
            for name in (secret_name(serial, parameter),)
        ),
    )
