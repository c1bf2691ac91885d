"""block: a reconfigurable block that is the emulation code as a circuit, the host's or simulated."""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import DomainSpec, HostDevice
from ...inventory.blocks import Block, BlockAnswer, BlockRequest, describe, match_blocks
from ...manifest.topology import ResourceRequest, Store
from ..book import Book
from ..code import Code
from .kind import Footing, Misfit

SIMULATE = "/usr/lib/devicevm/simulate"
"""The program of the simulator's image: the design's disk, and its SHA-256, which the guest looks at once more."""
SECTOR = 512
MAX_DESIGN = 2**20
"""Bytes; the simulator's own limit (plugin/guest/simulate)."""


@dataclass(frozen=True)
class BlockResource:
    """`options["provider"]` is host, with what it must be, or simulated, with the design's file and the image.

    A block is one device VM's at a time, by this plan and by whoever holds it already.
    """

    name: str = "block"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """The first free block that is asked for, or the design."""
        if not is_of_host(request):
            return self._simulate(request, book, footing)
        answer = _matches(request, book)
        if not answer.blocks:
            return Misfit(lambda: answer.says)
        block = answer.blocks[0]
        where = f" of NUMA node {block.node}" if block.node >= 0 else ""
        bitstream = request.options.get("bitstream", "")
        programmed = f", programmed with {bitstream}" if bitstream else ""
        footing.host_devices += _given(block, request)
        footing.why.append(lambda: f"{', '.join(block.addresses)}{where}{programmed}: {answer.says}")
        return None

    def code(self, request: ResourceRequest, book: Book, running: DomainSpec | None = None) -> Code:
        """The simulator and the design as the file is on the host; nothing for a block of the host.

        When the file is gone, or was not looked at, what a device VM is `running` counts: it goes on.
        """
        if is_of_host(request):
            return Code()
        image, path = request.options["image"], request.options["file"]
        facts = book.host.file(path)
        if not (facts and facts.digest) and running:
            for emulator in running.emulators:
                if emulator.store and emulator.store.path == path:
                    return Code(image, (SIMULATE, "${backing}", emulator.command[-1]), emulator.store)
        size, digest = (facts.size, facts.digest) if facts else (0, "")
        design = Store("file", size, path=path, read_only=True, reclaim="retain")
        return Code(image, (SIMULATE, "${backing}", digest), design)

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """It has such a block, or simulates that file; another content of the file is a change of its emulators."""
        if not is_of_host(request):
            stores = [emulator.store for emulator in spec.emulators if emulator.store]
            return bool(stores) and all(store.path == request.options["file"] for store in stores)
        return any(_given(block, request) == spec.host_devices for block in _matches(request, book).blocks)

    def describe(self, request: ResourceRequest) -> str:
        """`PCI function of vendor 0x1172`, `simulated block instrument.design`."""
        if is_of_host(request):
            return describe(_asked(request))
        return f"simulated block {request.options['file'].rpartition('/')[2]}"

    def _simulate(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        path = request.options["file"]
        facts = book.host.file(path)
        if facts and facts.problem:
            return Misfit(lambda: f"{path}: {facts.problem}")
        if facts and facts.size % SECTOR:
            return Misfit(
                lambda: (
                    f"{path} has {facts.size} bytes, which are no whole sectors of {SECTOR}: truncate -s %{SECTOR} it"
                )
            )
        if facts and facts.size > MAX_DESIGN:
            return Misfit(lambda: f"{path} has {facts.size} bytes, a design has {MAX_DESIGN} at most")
        content = f"SHA-256 {facts.digest[:12]}" if facts else "not looked at"
        footing.code = self.code(request, book)
        footing.why.append(lambda: f"image {request.options['image']} simulates {path} ({content})")
        return None


def is_of_host(request: ResourceRequest) -> bool:
    """Whether a request is one for a block that the host has."""
    return request.kind == "block" and request.options["provider"] == "host"


def _asked(request: ResourceRequest) -> BlockRequest:
    options = request.options
    return BlockRequest(
        kind=options["kind"],
        vendor=options.get("vendor", ""),
        device=options.get("device", ""),
        class_code=options.get("class", ""),
        mdev_type=options.get("type", ""),
        node=options.get("numaNode", -1),
        iommu_group=options.get("iommuGroup", -1),
    )


def _matches(request: ResourceRequest, book: Book) -> BlockAnswer:
    return match_blocks(book.host.node_devices, _asked(request), book.held)


def _given(block: Block, request: ResourceRequest) -> tuple[HostDevice, ...]:
    """A block as devices of a domain. The first that was asked for is programmed; what goes along is not."""
    options = request.options
    return tuple(
        HostDevice(block.kind, address, options.get("bitstream", ""), options.get("clear", ""))
        if address == block.matched[0]
        else HostDevice(block.kind, address)
        for address in block.addresses
    )


KIND = BlockResource()
