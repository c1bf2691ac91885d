"""The boot configuration that the agent reads from fw_cfg (docs/images.md, "Configuration")."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ..channel.registry import channel_kind
from ..domain import Emulator, Service
from ..record import canonical_json

FW_CFG_NAME = "opt/org.devicevm/config"
CONTROL_PORT = "org.devicevm.control"


def device_config(emulator: Emulator) -> dict[str, Any]:
    """An emulator in the agent's words: an item of its boot configuration, and what `Control.add` takes."""
    config: dict[str, Any] = {
        "name": emulator.id,
        "port": emulator.channel.port if channel_kind(emulator.channel.kind).has_port else None,
        "command": list(emulator.command),
        "onExit": emulator.on_exit,
    }
    if emulator.serial:
        config["backing"] = emulator.serial
    if emulator.serial and not emulator.store:
        config["backingSize"] = emulator.size
    return config


def service_config(service: Service) -> dict[str, Any]:
    """A service in the agent's words: a device without a port."""
    return {"name": service.name, "port": None, "command": list(service.command), "onExit": "restart"}


def boot_config(devices: Sequence[dict[str, Any]]) -> str:
    """The text of the fw_cfg item for `devices`, each as `device_config` makes it.

    Base64 of JSON: libvirt (seen in 9.0) hands the text of a fwcfg entry to QEMU with quotes turned
    into XML entities and commas not doubled, which QEMU then takes for further options.
    """
    return base64.b64encode(canonical_json({"devices": list(devices)}).encode()).decode("ascii")
