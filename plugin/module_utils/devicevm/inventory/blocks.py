"""Reconfigurable blocks (FPGAs and the like) of a host: which can be given to a device VM, and why not the others.

Pure matching over the inventory's node devices. VFIO hands out IOMMU groups, not devices, so a block is all endpoints
of a group: the kernel refuses a group of which the host still drives a member (Documentation/driver-api/vfio.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .host import NodeDevice

KINDS = ("pci", "vf", "mdev")
"""A whole PCI function, an SR-IOV virtual function, a mediated device that has been made already."""

_BRIDGE = "0x06"
# Not in the way of handing out their group: VFIO's own driver, and none.
_IDLE_DRIVERS = ("", "vfio-pci")
# Addresses or ids that a message shows before it says "and N more".
_NAMED = 8


@dataclass(frozen=True)
class BlockRequest:
    """What is asked for. Empty strings and -1 match anything; ids are hexadecimal with 0x, in any case or width.

    `kind` is one of KINDS. `class_code` is the beginning of a PCI class: `0x12` takes all processing accelerators,
    `0x120000` one. `mdev_type` is a mediated device's type; `vendor` and `device` are then those of its parent.
    `node` is the NUMA node that the block must be on.
    """

    kind: str = "pci"
    vendor: str = ""
    device: str = ""
    class_code: str = ""
    mdev_type: str = ""
    node: int = -1
    iommu_group: int = -1


@dataclass(frozen=True)
class Block:
    """What can be given as one: `addresses` (as in NodeDevice, ascending) are all the endpoints of its IOMMU group.

    `kind` is domain.HostDevice's: pci (virtual functions too) or mdev. `matched` are those that were asked for.
    `node` and `iommu_group` are -1 where the host does not tell.
    """

    kind: str
    addresses: tuple[str, ...]
    matched: tuple[str, ...]
    node: int = -1
    iommu_group: int = -1


@dataclass(frozen=True)
class Refusal:
    """A device of the kind asked for that cannot be had. `reason` reads on from its address: `is held by lab1`."""

    address: str
    reason: str


@dataclass(frozen=True)
class BlockAnswer:
    """The blocks that fit, by NUMA node and address; the devices that do not, by address; all of it in words."""

    blocks: tuple[Block, ...]
    refusals: tuple[Refusal, ...]
    says: str


def match_blocks(devices: Iterable[NodeDevice], request: BlockRequest, held: Mapping[str, str]) -> BlockAnswer:
    """The blocks of a host that `request` can have. Pure; the order of `devices` does not matter.

    `held` tells the domain that holds an address (free.Free.node_devices). An unknown kind is a ValueError: the
    schema has let none pass.
    """
    if request.kind not in KINDS:
        raise ValueError(f"block kind {request.kind!r}")
    host = _Host(devices, held)
    there = [device for device in host.of_kind(request.kind) if host.is_asked(device, request)]
    blocks: dict[tuple[str, ...], Block] = {}
    refusals = []
    for device in there:
        reason = host.why_not(device, request)
        if reason:
            refusals.append(Refusal(device.address, reason))
            continue
        addresses = host.endpoints(device)
        before = blocks.get(addresses)
        blocks[addresses] = Block(
            kind="mdev" if request.kind == "mdev" else "pci",
            addresses=addresses,
            matched=((*before.matched, device.address) if before else (device.address,)),
            node=before.node if before else host.node(device),
            iommu_group=device.iommu_group,
        )
    # Nodes that are not told come last.
    order = sorted(blocks.values(), key=lambda block: (block.node < 0, block.node, block.addresses))
    says = host.words(request, there, order, refusals)
    return BlockAnswer(tuple(order), tuple(refusals), says)


class _Host:
    """The node devices of one host, findable in the ways that matching needs."""

    def __init__(self, devices: Iterable[NodeDevice], held: Mapping[str, str]) -> None:
        self.devices = sorted(devices, key=lambda device: (device.address, device.name))
        self.held = held
        self.by_name = {device.name: device for device in self.devices}
        self.by_address = {device.address: device for device in self.devices if device.address}

    def of_kind(self, kind: str) -> list[NodeDevice]:
        if kind == "mdev":
            return [device for device in self.devices if device.kind == "mdev"]
        virtual = kind == "vf"
        return [
            device
            for device in self.devices
            if device.kind == "pci" and bool(device.physical_function) == virtual and not _is_bridge(device)
        ]

    def is_asked(self, device: NodeDevice, request: BlockRequest) -> bool:
        """By what the device is; not by where it is, or who has it."""
        owner = self._function(device)
        return (
            (not request.vendor or _same_id(owner.vendor, request.vendor))
            and (not request.device or _same_id(owner.product, request.device))
            and (not request.class_code or owner.class_code.startswith(request.class_code.lower()))
            and (not request.mdev_type or device.product == request.mdev_type)
        )

    def why_not(self, device: NodeDevice, request: BlockRequest) -> str:
        """Why a device that is asked for cannot be had; empty when it can."""
        if device.address in self.held:
            return f"is held by {self.held[device.address]}"
        if request.node >= 0 and self.node(device) != request.node:
            where = f"NUMA node {self.node(device)}" if self.node(device) >= 0 else "no NUMA node that is told"
            return f"is on {where}, node {request.node} is asked"
        if request.iommu_group >= 0 and device.iommu_group != request.iommu_group:
            if device.iommu_group < 0:
                return f"has no IOMMU group, group {request.iommu_group} is asked"
            return f"is in IOMMU group {device.iommu_group}, group {request.iommu_group} is asked"
        return self._why_kin_not(device) or self._why_group_not(device)

    def _why_kin_not(self, device: NodeDevice) -> str:
        """The functions above and below share its hardware: who holds those decides over it too."""
        above = device.physical_function or (self._function(device).address if device.kind == "mdev" else "")
        if above in self.held:
            what = "its parent" if device.kind == "mdev" else "its physical function"
            return f"cannot be had: {what} {above} is held by {self.held[above]}"
        for address in device.virtual_functions:
            if address in self.held:
                return f"cannot be had: its virtual function {address} is held by {self.held[address]}"
        for child in self.devices:
            if child.kind == "mdev" and child.parent == device.name and child.address in self.held:
                return f"cannot be had: its mediated device {child.address} is held by {self.held[child.address]}"
        return ""

    def _why_group_not(self, device: NodeDevice) -> str:
        if device.kind != "pci":
            return ""
        if device.iommu_group < 0:
            return "has no IOMMU group: the host's IOMMU is off or has none for it"
        reasons = [reason for member in self._group(device) if (reason := self._why_member_not(device, member))]
        if not reasons:
            return ""
        return f"cannot be had without the rest of IOMMU group {device.iommu_group}: {', '.join(reasons)}"

    def _why_member_not(self, device: NodeDevice, member: NodeDevice) -> str:
        if member.address in self.held:
            return f"{member.address} is held by {self.held[member.address]}"
        # Functions of the same card go along. What else the host drives may be its disk or its network.
        if _slot(member) != _slot(device) and member.driver not in _IDLE_DRIVERS:
            return f"{member.address} is in use by the host (driver {member.driver})"
        return ""

    def endpoints(self, device: NodeDevice) -> tuple[str, ...]:
        """All that goes together with a device, itself included."""
        return tuple(sorted({device.address, *(member.address for member in self._group(device))}))

    def _group(self, device: NodeDevice) -> list[NodeDevice]:
        if device.kind != "pci" or device.iommu_group < 0:
            return []
        return [
            member
            for member in self.devices
            if member.kind == "pci"
            and member.iommu_group == device.iommu_group
            and member.address != device.address
            # Bridges stay with the host, which VFIO allows.
            and not _is_bridge(member)
        ]

    def _function(self, device: NodeDevice) -> NodeDevice:
        """The PCI function that a mediated device is a part of; itself for others."""
        return self.by_name.get(device.parent, device) if device.kind == "mdev" else device

    def node(self, device: NodeDevice) -> int:
        """The NUMA node, a virtual function's or mediated device's from what it is a part of; -1 = not told."""
        if device.node >= 0:
            return device.node
        above = self.by_address.get(device.physical_function) or self._function(device)
        return above.node

    def words(
        self, request: BlockRequest, there: list[NodeDevice], blocks: list[Block], refusals: list[Refusal]
    ) -> str:
        """`2 PCI functions are there: 0000:03:00.0 is held by lab1, 0000:04:00.0 is free`, or what is there instead."""
        if not there:
            return self._words_of_none(request)
        state = {address: "is free" for block in blocks for address in block.matched}
        for block in blocks:
            along = [address for address in block.addresses if address not in block.matched]
            if along:
                state[block.matched[0]] = f"is free, and takes {', '.join(along)} along"
        state |= {refusal.address: refusal.reason for refusal in refusals}
        each = [f"{device.address} {state[device.address]}" for device in there]
        count = len(there)
        return f"{count} {describe(request, count)} {'is' if count == 1 else 'are'} there: {_some(each)}"

    def _words_of_none(self, request: BlockRequest) -> str:
        others = self.of_kind(request.kind)
        if request.kind == "mdev":
            found = sorted({device.product for device in others if device.product})
            seen = f"{len(others)} of type {_some(found)} are made" if found else "none at all are made"
            return f"no {describe(request)} is there: {seen}{self._could_be_made(request)}"
        what = "virtual functions" if request.kind == "vf" else "PCI functions"
        vendor = BlockRequest(kind=request.kind, vendor=request.vendor)
        near = [device for device in others if request.vendor and self.is_asked(device, vendor)]
        if near:
            each = [f"{device.address} is {device.product}, class {device.class_code or 'unknown'}" for device in near]
            return f"no {describe(request)} is there, but {len(near)} {describe(vendor, len(near))}: {_some(each)}"
        vendors = sorted({device.vendor for device in others if device.vendor})
        seen = f", of vendors {_some(vendors)}" if vendors else ""
        return f"no {describe(request)} is there: the host has {len(others)} {what}{seen}"

    def _could_be_made(self, request: BlockRequest) -> str:
        """Mediated devices are made by the host's administrator; where that is possible is worth telling."""
        found = [
            f"{device.address} has room for {count} of type {kind}"
            for device in self.devices
            for kind, count in sorted(device.mdev_types.items())
            if count > 0 and kind == (request.mdev_type or kind)
        ]
        return f"; {_some(found)}" if found else ""


def describe(request: BlockRequest, count: int = 1) -> str:
    """What is asked for, in words: `PCI functions of vendor 0x1172, device 0x0004`; where it is to be is not in it."""
    head = {"pci": "PCI function", "vf": "virtual function", "mdev": "mediated device"}[request.kind]
    words = [("vendor", request.vendor), ("device", request.device), ("class", request.class_code)]
    named = [f"{word} {value.lower()}" for word, value in [*words, ("type", request.mdev_type)] if value]
    what = head if count == 1 else f"{head}s"
    return f"{what} of {', '.join(named)}" if named else what


def _same_id(one: str, other: str) -> bool:
    try:
        return int(one, 16) == int(other, 16)
    except ValueError:
        return False


def _is_bridge(device: NodeDevice) -> bool:
    return device.class_code.startswith(_BRIDGE)


def _slot(device: NodeDevice) -> str:
    """The card: a PCI address without its function; a virtual function's is its physical one's."""
    return (device.physical_function or device.address).rpartition(".")[0]


def _some(items: list[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")
