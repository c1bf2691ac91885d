"""`python -m bench [NAME...]`: measure, print, and keep the results; see --help."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from devicevm.guest.store import default_store

from . import attach, bound, disk, no_change, nova_peer, outage, scale, start_to_ready, ten_clients
from .report import keep, known, page, plots, table
from .stage import make_stage, say

BENCHMARKS = {
    "start": start_to_ready,
    "apply": ten_clients,
    "nochange": no_change,
    "disk": disk,
    "attach": attach,
    "outage": outage,
    "bound": bound,
    "nova": nova_peer,
    "scale": scale,
}
RUNS = {
    "start": 9,
    "apply": 3,
    "nochange": 9,
    "disk": 5,
    "attach": 9,
    "outage": 5,
    "bound": 100,
    "nova": 1000,
    "scale": 3,
}
TOGETHER = {"peers": ("bound", "nova")}
"""Names of several: planning against those who have planned before."""
REPO = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run what was asked for, and make the page anew of every result that is kept."""
    asked = _arguments()
    # What is started must be ended when we are.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [name for word in asked.names for name in TOGETHER.get(word, (word,))] or list(BENCHMARKS)
    if len(names) == 1:
        _measure(names[0], asked)
    else:
        # libvirt opens one embedded VMM in the life of a process: each benchmark has a process of its own.
        options = [word for word in sys.argv[1:] if word not in (*BENCHMARKS, *TOGETHER)]
        for name in names:
            subprocess.run([sys.executable, "-m", "bench", name, *options, "--no-page"], check=True)
    results = known(asked.json)
    if not asked.no_page:
        shown = [results[name] for name in BENCHMARKS if name in results]
        asked.page.write_text(page(shown), encoding="utf-8")
        for name, plot in plots(shown).items():
            (asked.page.parent / name).write_text(plot, encoding="utf-8")
        say(f"written: {asked.page}")
    return 0


def _measure(name: str, asked: argparse.Namespace) -> None:
    with make_stage(asked.images, asked.accelerator) as stage:
        say(f"== {name}")
        load = os.getloadavg()[0]
        result = BENCHMARKS[name].run(stage, asked.runs or RUNS[name])
    result = replace(result, date=time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), load=round(load, 2))
    keep(result, asked.json)
    print(table(result), flush=True)


def _arguments() -> argparse.Namespace:
    known_names = ", ".join((*BENCHMARKS, *TOGETHER))
    parser = argparse.ArgumentParser(prog="bench", description="What devicevm costs, against doing the same by hand.")
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS, *TOGETHER], help=f"all, or of {known_names}")
    parser.add_argument(
        "--runs", type=int, default=0, help="runs, fleets or questions of each (default: as many as it needs)"
    )
    parser.add_argument("--images", type=Path, default=default_store(), help="image store")
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--json", type=Path, default=REPO / "build/benchmarks.json", help="where results are kept")
    parser.add_argument("--page", type=Path, default=REPO / "docs/benchmarks.md", help="the page that is made of them")
    parser.add_argument("--no-page", action="store_true", help="leave the page as it is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
