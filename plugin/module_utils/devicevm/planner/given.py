"""What a device VM has been given: as the plan's line, in words, and as the footing that it stands on."""

from __future__ import annotations

from dataclasses import replace

from ..domain import CpuPlacement, DomainSpec
from ..inventory.cpuset import format_cpuset
from ..manifest.topology import Consumer
from .book import cpus_of
from .code import Code
from .plan import Allocation, Endpoint
from .resources import Footing


def allocation_of(spec: DomainSpec, reasons: tuple[str, ...]) -> Allocation:
    """The plan's line on what runs a device VM's emulation code."""
    return Allocation(
        device_vm=spec.name,
        host=spec.host,
        unit=spec.placement.unit,
        cpus=spec.placement.cpus,
        memory=spec.memory,
        channel=", ".join(sorted({emulator.channel.kind for emulator in spec.emulators})),
        dedicated=spec.placement.dedicated,
        nodes=spec.placement.nodes,
        serves=tuple(f"{emulator.client}/{emulator.name}" for emulator in spec.emulators),
        reasons=reasons,
        firmware=spec.firmware.path if spec.firmware else "",
        blocks=tuple(device.address for device in spec.host_devices),
        endpoints=tuple(
            Endpoint(f"{emulator.client}/{emulator.name}", emulator.channel.address)
            for emulator in spec.emulators
            if emulator.consumer is Consumer.VMM
        ),
    )


def describe_given(spec: DomainSpec) -> str:
    """`CPU 2-3 as dedicated core`, `firmware meter.elf on CPU 3 as thread`, `0000:03:00.0 and CPU 3 as thread`."""
    placement = describe_placement(spec.placement)
    if spec.host_devices:
        return f"{', '.join(device.address for device in spec.host_devices)} and {placement}"
    return f"firmware {spec.firmware.path} on {placement}" if spec.firmware else placement


def describe_placement(placement: CpuPlacement) -> str:
    """`CPU 2-3 as dedicated core`, `CPU 2 as thread, the VMM's own threads on CPU 0-1`."""
    alone = "dedicated " if placement.dedicated else ""
    given = f"CPU {format_cpuset(cpus_of(placement)) or 'any'} as {alone}{placement.unit}"
    # On the processors of the virtual CPUs they are where they are expected.
    apart = placement.emulator if placement.emulator != cpus_of(placement) else ()
    return f"{given}, the VMM's own threads on CPU {format_cpuset(apart)}" if apart else given


def footing_of(spec: DomainSpec, memory: int, code: Code) -> Footing:
    """What a device VM stands on now, with the memory it is to have: firmware's machine keeps what it has."""
    return Footing(
        memory=spec.memory if spec.firmware else memory,
        placement=spec.placement,
        vcpus=spec.vcpus,
        features=spec.cpu_features,
        page_size=spec.page_size,
        arch=spec.arch,
        machine=spec.machine,
        code=code if code.firmware == spec.firmware else replace(code, firmware=spec.firmware),
        host_devices=spec.host_devices,
    )
