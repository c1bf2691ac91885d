"""devicevm demo: see it work."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .. import output
from ..data import data
from ..demonstration import Demonstration, demo_topology
from ..manifests import read
from ..options import Seconds, Vmm, accelerator_option, command, compose, format_option, images_option


@command(
    "demo",
    ("The quickstart, from nothing; nothing stays but the images", "devicevm demo"),
    ("Leave it running, to look at", "devicevm demo --keep"),
)
@compose(
    click.option("--keep", is_flag=True, help="Leave everything running, and say how to look at it and to remove it."),
    click.option(
        "--timeout",
        type=Seconds(1),
        default=300.0,
        metavar="SECONDS",
        help="How long a device VM may take to become ready, and the client to use its devices.",
    ),
    accelerator_option,
    images_option,
    format_option,
)
def demo(*, keep: bool, timeout: float, accelerator: str, images: Path | None, form: str) -> int:
    """Run the quickstart, and clean up.

    It runs on an embedded VMM in a temporary folder: your own domains are never touched. Images are built when
    they are missing. A client VM boots a stock kernel, makes a file system on a disk, reads a random number
    generator and a GPS receiver, all of which a device VM emulates, and says what it found. A second apply
    changes nothing. Then all is destroyed, and nothing may be left; exit status 1 otherwise.
    """
    begun = time.monotonic()
    topology = demo_topology(read([str(data("examples", "quickstart.yaml"))]))
    demonstration = Demonstration(Vmm("", images, accelerator), topology, timeout, form)
    demonstration.run(keep)
    seconds = round(time.monotonic() - begun, 1)
    if form == "json":
        output.document(
            {
                "passed": True,
                "seconds": seconds,
                "client": demonstration.words,
                "left": demonstration.left,
                "uri": demonstration.uri if keep else "",
            }
        )
        return 0
    output.line(
        f"Passed in {seconds:.0f} s. " + ("" if keep else "No domain, process, socket or mount is left."), "bold green"
    )
    if keep:
        output.line(f"Look:    devicevm status --connect '{demonstration.uri}'")
        output.line(
            f"Remove:  devicevm destroy --owner demo --connect '{demonstration.uri}' && rm -r {demonstration.root}"
        )
    return 0
