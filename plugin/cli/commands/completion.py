"""devicevm completion: the shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ...errors import DevicevmError
from .. import output
from ..options import command


@command(
    "completion",
    ("For this shell", 'eval "$(devicevm completion bash)"'),
    ("For every bash", "devicevm completion bash > /etc/bash_completion.d/devicevm"),
    ("For fish", "devicevm completion fish > ~/.config/fish/completions/devicevm.fish"),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Write a shell's completion script."""
    from ..main import cli

    made = get_completion_class(shell)
    if made is None:
        raise DevicevmError(f"this version of click completes nothing in {shell}")
    output.line(made(cli, {}, "devicevm", "_DEVICEVM_COMPLETE").source())
    return 0
