# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a module's arguments to its VMM, and from the core's errors to a module's failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .devicevm.errors import DevicevmError
from .devicevm.guest.store import default_store
from .devicevm.quantity import check_seconds
from .devicevm.vmm.driver import Driver
from .devicevm.vmm.registry import default_uri, open_driver

VMM_ARGUMENTS: dict[str, Any] = {
    "connect": {"type": "str", "default": ""},
    "images": {"type": "path"},
    "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
    "lock_timeout": {"type": "float", "default": 120.0},
}
"""The options of the documentation fragment `vmm`."""


def vmm_uri(arguments: Mapping[str, Any]) -> str:
    """The VMM that the module's arguments name, or the one that is there."""
    check_seconds("lock_timeout", arguments["lock_timeout"])
    return arguments["connect"] or default_uri()


def open_vmm(uri: str, arguments: Mapping[str, Any]) -> Driver:
    """A driver for the VMM at `uri`."""
    return open_driver(
        uri,
        images=Path(arguments["images"]) if arguments["images"] else default_store(),
        accelerator=arguments["accelerator"],
        wait=arguments["lock_timeout"],
    )


def fail(module: AnsibleModule, error: DevicevmError, result: Mapping[str, Any] | None = None) -> NoReturn:
    """End the module with the error's words and `result`; options are named as Ansible names them."""
    module.fail_json(**{**(result or {}), "msg": in_ansible_words(str(error), module.argument_spec)})
    raise AssertionError("fail_json does not return")


def in_ansible_words(text: str, options: Iterable[str]) -> str:
    """The core speaks of the command line's `--lock-timeout`; a task has `lock_timeout`."""
    for option in options:
        text = text.replace(f"--{option.replace('_', '-')}", option)
    return text
