"""The entry point: finds the command, and turns whatever goes wrong into a sentence and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from .. import __version__
from ..errors import DevicevmError
from . import output
from .interrupted import Interrupted, terminable
from .options import CONTEXT, Invocation, debug_option

COMMANDS = {
    "validate": "validate",
    "inventory": "inventory",
    "plan": "plan",
    "apply": "apply",
    "status": "status",
    "explain": "explain",
    "render": "render",
    "endpoint": "endpoint",
    "destroy": "destroy",
    "image": "image",
    "logs": "logs",
    "console": "console",
    "manager": "manager",
    "demo": "demo",
    "completion": "completion",
}
"""Command -> its module in commands/, which holds a click command of that name; in the order of the help."""

FAILED, INTERRUPTED = 1, 130


class Commands(click.Group):
    """Loads a command's module when it is asked for: `devicevm validate` need not wait for the others'."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".commands.{COMMANDS[cmd_name]}", __package__)
        found: click.Command = getattr(module, cmd_name)
        return found


@click.group(
    cls=Commands, context_settings=CONTEXT, epilog="Each command's --help has examples. Documentation: docs/cli.md."
)
@click.version_option(__version__, message="devicevm %(version)s")
@debug_option
def cli() -> None:
    """Declare the devices that VMs need; devicevm runs the device VMs that emulate them.

    A plan is made from manifests and from what the VMM has, and carried out. Results are written to standard
    output, progress and errors to standard error. Exit status: 0 done or nothing to do, 1 failed, 2 wrong usage.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: this process's) and return its exit status; nothing is raised."""
    invocation = Invocation()
    # An embedded VMM is part of this process, and its warnings would come between what is said here; errors are
    # raised, and told, anyway.
    os.environ.setdefault("LIBVIRT_DEBUG", "4")
    try:
        with terminable():
            status = cli.main(arguments, prog_name="devicevm", standalone_mode=False, obj=invocation)
            return status if isinstance(status, int) else 0
    except click.ClickException as error:
        _explain_usage(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.error("interrupted; nothing was changed")
        return INTERRUPTED
    except DevicevmError as error:
        _explain(invocation)
        output.error(error.message, error.hint)
        return INTERRUPTED if isinstance(error, Interrupted) else FAILED
    except Exception as error:  # the last resort: users get a sentence, developers --debug
        _explain(invocation)
        what = f"{type(error).__name__}: {error}".strip(": ")
        output.error(
            f"devicevm failed in a way it should not: {what}", "run it again with --debug and report what it says"
        )
        return FAILED


def _explain(invocation: Invocation) -> None:
    if invocation.debug:
        traceback.print_exc(file=sys.stderr)


def _explain_usage(error: click.ClickException) -> None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context:
        output.note(context.get_usage())
    output.error(error.format_message(), f"{context.command_path} --help" if context else "")
