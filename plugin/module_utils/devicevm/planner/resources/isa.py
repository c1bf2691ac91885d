"""isa: instruction set extensions that the emulation code uses."""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import DomainSpec
from ...inventory.features import features_for_guests
from ...manifest.topology import ResourceRequest
from ..book import Book
from .kind import Footing, Misfit


@dataclass(frozen=True)
class Isa:
    """The extensions in `options["features"]`, in libvirt's names. libvirt may drop silently what it cannot give, so
    they are looked for in what the host says that its guests can have before they are asked for."""

    name: str = "isa"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """The extensions, when guests of the host can have all of them."""
        asked = features_of(request)
        there = features_for_guests(book.host)
        if missing := [feature for feature in asked if feature not in there]:
            known = "no guest's extensions are known of this host" if not there else f"guests have {len(there)} others"
            return Misfit(
                lambda: f"{', '.join(missing)} cannot be had with {book.host.accelerator or 'its VMM'}: {known}"
            )
        them = "them" if len(asked) > 1 else "it"
        footing.features = tuple(sorted({*footing.features, *asked}))
        footing.why.append(lambda: f"{', '.join(asked)}: guests of this host can have {them}")
        return None

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """It was given all of them."""
        return set(features_of(request)) <= set(spec.cpu_features)

    def describe(self, request: ResourceRequest) -> str:
        """`avx2 and aes`."""
        return " and ".join(features_of(request))


def features_of(request: ResourceRequest) -> tuple[str, ...]:
    """The extensions of a request, in order."""
    return tuple(sorted(request.options["features"]))


KIND = Isa()
