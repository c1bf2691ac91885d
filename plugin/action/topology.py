# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads and checks manifests on the controller, and sends the module on the target what they declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.errors import DevicevmError, InvalidManifest
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.manifest.read import (
    read_topology,
    topology_from_documents,
)
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.manifest.topology import Topology
from ansible_collections.devicevm.vmm.plugins.module_utils.devicevm.record import to_data
from ansible_collections.devicevm.vmm.plugins.module_utils.topology_arguments import (
    ARGUMENTS,
    EXCLUSIVE,
    READ_ON_CONTROLLER,
    REQUIRED_BY,
    REQUIRED_IF,
    TOPOLOGY,
    check_arguments,
)

COLLECTION = Path(__file__).resolve().parents[2]
SCHEMAS, CLASSES = COLLECTION / "schemas", COLLECTION / "classes"


class ActionModule(ActionBase):
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = self.validate_argument_spec(
            ARGUMENTS, mutually_exclusive=EXCLUSIVE, required_if=REQUIRED_IF, required_by=REQUIRED_BY
        )[1]
        try:
            check_arguments(arguments)
            topology = self._read(arguments)
        except InvalidManifest as error:
            return {"failed": True, "msg": str(error), "problems": to_data(error.problems)}
        except DevicevmError as error:
            return {"failed": True, "msg": str(error)}
        # What the user gave and nothing of the defaults: the module has its own, of the same source.
        rest = {key: value for key, value in self._task.args.items() if key not in READ_ON_CONTROLLER}
        return self._execute_module(
            module_args={**rest, TOPOLOGY: to_data(topology)},
            task_vars=task_vars,
            wrap_async=bool(self._task.async_val),
        )

    def _read(self, arguments: dict[str, Any]) -> Topology:
        if arguments["src"] is not None:
            return read_topology(map(self._find, arguments["src"]), schemas=SCHEMAS, classes=CLASSES)
        if arguments["manifests"] is not None:
            base = Path(arguments["base"]) if arguments["base"] else None
            if base and not base.is_absolute():
                raise DevicevmError(
                    f"base: {base} is relative, and it is a folder on the target", hint="begin it with /"
                )
            return topology_from_documents(arguments["manifests"], schemas=SCHEMAS, classes=CLASSES, base=base)
        return Topology()

    def _find(self, path: str) -> str:
        """Where a file or folder is, as `ansible.builtin.copy` would look for it."""
        try:
            return str(self._find_needle("files", path))
        except AnsibleError as error:
            raise DevicevmError(f"{path} cannot be found on the controller: {error}") from error
