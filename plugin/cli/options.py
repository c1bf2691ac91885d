"""Options that several commands have, each declared once; and how a command is declared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import DevicevmError
from ..manifest.owner import check_owner
from ..manifest.topology import DEFAULT_OWNER
from ..quantity import MAX_SECONDS, check_seconds

F = TypeVar("F", bound=Callable[..., Any])

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


@dataclass
class Invocation:
    """What one run of the program knows besides its command's options."""

    debug: bool = False


@dataclass(frozen=True)
class Vmm:
    """Which VMM is meant. `uri` empty: LIBVIRT_DEFAULT_URI, then the system's, then an embedded one."""

    uri: str
    images: Path | None
    accelerator: str


@dataclass(frozen=True)
class Example:
    """A command line that works as it stands, and what it is for."""

    purpose: str
    command: str


class Command(click.Command):
    """A click command that teaches by example."""

    def __init__(self, *arguments: Any, examples: Sequence[tuple[str, str]] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = tuple(Example(*example) for example in examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, below the options."""
        if self.examples:
            formatter.write("\nExamples:\n")
        for example in self.examples:
            formatter.write(f"  # {example.purpose}\n  {example.command}\n")


def command(name: str, *examples: tuple[str, str]) -> Callable[[Callable[..., int]], Command]:
    """Declares a command: `examples` are (purpose, command line); the function returns the exit status."""

    def declare(function: Callable[..., int]) -> Command:
        made = click.command(name, cls=Command, context_settings=CONTEXT, examples=examples)(debug_option(function))
        # What every command has comes last in its help.
        made.params.append(made.params.pop(0))
        return made

    return declare


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation:
        invocation.debug = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    envvar="DEVICEVM_DEBUG",
    show_envvar=True,
    expose_value=False,
    is_eager=True,
    callback=_remember_debug,
    help="Show where in the program an error came from.",
)


class Seconds(click.FloatRange):
    """A time to wait. Float ranges let nan through, and infinity where they have no end."""

    name = "seconds"

    def __init__(self, least: float) -> None:
        super().__init__(min=least, max=MAX_SECONDS)
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; wrong usage when it is none to wait for."""
        seconds = float(super().convert(value, param, ctx))
        try:
            check_seconds(f"{value!r}", seconds, least=self.least)
        except DevicevmError as error:
            self.fail(f"{value!r} is no time to wait; {error.hint}.", param, ctx)
        return seconds


def owner_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of `--owner`: its value, or nothing where that is a choice; wrong usage for what is no name."""
    try:
        return check_owner(value) if value else value
    except DevicevmError as error:
        raise click.BadParameter(f"{error.message}; {error.hint}.", ctx, param) from error


def debugging() -> bool:
    """Whether --debug is given."""
    context = click.get_current_context(silent=True)
    invocation = context.find_object(Invocation) if context else None
    return bool(invocation and invocation.debug)


format_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How the result is written.",
)

owner_option = click.option(
    "--owner",
    callback=owner_name,
    default=DEFAULT_OWNER,
    envvar="DEVICEVM_OWNER",
    show_envvar=True,
    metavar="NAME",
    help="The manifest set that what is made belongs to, in letters, digits and -._; nobody else's is touched.",
)

prune_option = click.option("--prune", is_flag=True, help="Remove the owner's clients that are not declared.")

rebalance_option = click.option(
    "--rebalance",
    is_flag=True,
    help="Move what runs where that is better, and tell what it gains and costs; without it what runs stays.",
)

upgrade_option = click.option(
    "--upgrade",
    is_flag=True,
    help="Have device VMs boot the newest build of their image, one after the other; without it they keep theirs.",
)

yes_option = click.option("-y", "--yes", "--auto-approve", "yes", is_flag=True, help="Do not ask, even on a terminal.")

lock_option = click.option(
    "--lock-timeout",
    type=Seconds(0),
    default=120.0,
    metavar="SECONDS",
    help="How long to wait while another command changes the same VMM.",
)

inventory_option = click.option(
    "--inventory",
    "inventories",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Plan offline on this inventory (`devicevm inventory -o json`); repeat it for several hosts.",
)

connect_option = click.option(
    "--connect",
    metavar="URI",
    help="The VMM, as libvirt names it; else LIBVIRT_DEFAULT_URI, else the first of qemu:///system and an "
    "embedded one that works.",
)

images_option = click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where device VM images are; else DEVICEVM_IMAGES, else the user's or the system's folder.",
)

accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    help="What runs guests; auto takes the best that was seen to work.",
)

paths_argument = click.argument("paths", nargs=-1, required=True, metavar="PATH...")


def vmm_options(function: F) -> F:
    """The options that name a VMM, given to `function` as one `vmm`."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, connect: str | None, images: Path | None, accelerator: str, **others: Any) -> Any:
        return function(*arguments, vmm=Vmm(connect or "", images, accelerator), **others)

    options = (
        connect_option,
        images_option,
        accelerator_option,
    )
    return compose(*options)(wrapped)  # type: ignore[return-value]


def carry_out_options(function: F) -> F:
    """How steps are carried out: given to `function` as `parallel` and `timeout`."""
    return compose(
        click.option("--parallel", type=click.IntRange(1, 64), default=8, metavar="N", help="Steps at the same time."),
        click.option(
            "--timeout",
            type=Seconds(1),
            default=60.0,
            metavar="SECONDS",
            help="How long a device VM may take to become ready.",
        ),
    )(function)


def compose(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """The decorators as one; the first one's option comes first in the help."""

    def apply_all(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply_all
