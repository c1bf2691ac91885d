"""program: what runs on an alternative's resources, where it is not the class's own program in the class's image."""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book
from ..code import Code
from .kind import Footing, Misfit


@dataclass(frozen=True)
class ProgramResource:
    """`options`: image (a name) and command (a template); empty = the class's. Whether the image is on the host is
    asked of all images in one place (placement.py)."""

    name: str = "program"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """This code; it takes nothing of the host."""
        footing.code = self.code(request, book)
        footing.why.append(lambda: f"its code is {self.describe(request)}")
        return None

    def code(self, request: ResourceRequest, book: Book, running: DomainSpec | None = None) -> Code:
        """The image and the command that are named."""
        return Code(image=request.options["image"], command=tuple(request.options["command"]))

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """It boots the image; another command is a change of its emulators alone."""
        image = request.options["image"]
        return not image or spec.image.rpartition("-")[0] in ("", image)

    def describe(self, request: ResourceRequest) -> str:
        """`meter-avx in image lab`."""
        command, image = request.options["command"], request.options["image"]
        words = [command[0].rpartition("/")[2] if command else "its program"] + ([f"in image {image}"] if image else [])
        return " ".join(words)


KIND = ProgramResource()
