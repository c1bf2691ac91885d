# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a module's arguments to its VMM, and from the core's errors to a module's failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .devicevm.errors import DevicevmError
from .devicevm.vmm.driver import Driver
from .devicevm.vmm.registry import open_driver

VMM_ARGUMENTS: dict[str, Any] = {
    "connect": {"type": "str", "default": ""},
    "images": {"type": "path"},
    "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
    "lock_timeout": {"type": "float", "default": 30.0},
}
"""The options of the documentation fragment `vmm`."""


def open_vmm(arguments: Mapping[str, Any]) -> Driver:
    """A driver for the VMM that the module's arguments name."""
    images = arguments["images"]
    return open_driver(
        arguments["connect"],
        images=Path(images) if images else None,
        accelerator=arguments["accelerator"],
        wait=arguments["lock_timeout"],
    )


def fail(module: AnsibleModule, error: DevicevmError, **result: Any) -> NoReturn:
    """End the module with the error's words; its options are named as Ansible names them."""
    module.fail_json(msg=in_ansible_words(str(error), module.argument_spec), **result)
    raise AssertionError("fail_json does not return")


def in_ansible_words(text: str, options: Iterable[str]) -> str:
    """The core speaks of the command line's `--lock-timeout`; a task has `lock_timeout`."""
    for option in options:
        text = text.replace(f"--{option.replace('_', '-')}", option)
    return text
