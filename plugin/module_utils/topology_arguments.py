# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of the module `topology`, for the module and for its action plugin, which checks them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .devicevm.apply.workflow import DEFAULT_TIMEOUT, Options
from .devicevm.manifest.owner import check_owner
from .devicevm.manifest.topology import DEFAULT_OWNER
from .devicevm.quantity import check_seconds
from .vmm_access import VMM_ARGUMENTS

TOPOLOGY = "topology"
"""Where the action plugin puts what it has read; it takes no such option from a task."""

READ_ON_CONTROLLER = ("src", "manifests", "base")
"""Options that the action plugin uses up."""

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "src": {"type": "list", "elements": "path"},
    "manifests": {"type": "list", "elements": "dict"},
    "base": {"type": "path"},
    "owner": {"type": "str", "default": DEFAULT_OWNER},
    "prune": {"type": "bool", "default": False},
    "delete_data": {"type": "bool", "default": False},
    "rebalance": {"type": "bool", "default": False},
    "upgrade": {"type": "bool", "default": False},
    "allow_unplaced": {"type": "bool", "default": False},
    "parallel": {"type": "int", "default": Options.parallel},
    "timeout": {"type": "float", "default": DEFAULT_TIMEOUT},
    **VMM_ARGUMENTS,
}

EXCLUSIVE = [("src", "manifests")]
REQUIRED_BY = {"base": ["manifests"]}
REQUIRED_IF = [("state", "present", ["src", "manifests"], True), ("prune", False, ["src", "manifests"], True)]
"""Only to remove everything of an owner's (`absent` with `prune`) needs no manifests."""


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """DevicevmError for what a type alone does not refuse."""
    check_owner(arguments["owner"])
    check_seconds("timeout", arguments["timeout"], least=1.0)
    check_seconds("lock_timeout", arguments["lock_timeout"])
