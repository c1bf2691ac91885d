"""docs/cli.md, from the commands themselves: `python -m devicevm.cli.manual > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from .main import cli
from .options import CONTEXT, Command

_HEAD = """\
# The command line

<!-- Made by `python -m devicevm.cli.manual > docs/cli.md`; a test compares. -->

"""
_TAIL = """\
## Exit status

| status | meaning |
|---|---|
| 0 | done, or nothing to do |
| 1 | failed; standard error says why and what to do |
| 2 | wrong usage; with `plan --detailed-exitcode`: changes are pending |
| 130 | interrupted or not confirmed; standard error says what state is left |

## Environment

| variable | meaning |
|---|---|
| `LIBVIRT_DEFAULT_URI` | the VMM, without `--connect` |
| `DEVICEVM_OWNER` | the owner, without `--owner` |
| `DEVICEVM_IMAGES` | the folder of images, without `--images` |
| `DEVICEVM_DEBUG` | like `--debug` |
| `NO_COLOR`, `FORCE_COLOR`, `TERM` | whether output has colours; without a terminal it has none |
"""


def manual() -> str:
    """The whole page."""
    parts = [_HEAD, _text(cli), "\n"]
    for path, command in commands():
        parts += [_section(path, command), "\n"]
    return "".join([*parts, _TAIL])


def commands(group: click.Group = cli, path: str = "devicevm") -> Iterator[tuple[str, Command]]:
    """Every command with its full name, in the order of the help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, f"{path} {name}")
        elif isinstance(found, Command):
            yield f"{path} {name}", found


def _section(path: str, command: Command) -> str:
    with click.Context(command, info_name=path, **CONTEXT) as context:
        synopsis = " ".join([path, *command.collect_usage_pieces(context)])
        params = [param for param in command.get_params(context) if isinstance(param, click.Option)]
        options = [record for param in params if (record := param.get_help_record(context))]
    examples = "".join(f"    # {example.purpose}\n    {example.command}\n" for example in command.examples)
    table = "".join(f"| {_cell(f'`{flags}`')} | {_cell(text)} |\n" for flags, text in options)
    return (
        f"## {path}\n\n### Synopsis\n\n    {synopsis}\n\n### Description\n\n{_text(command)}\n"
        f"### Examples\n\n{examples}\n### Options\n\n| option | meaning |\n|---|---|\n{table}"
    )


def _text(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "") + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(manual(), nl=False)
