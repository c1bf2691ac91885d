"""libvirt's hook: asks the manager for a client's device VMs before the client starts, and says when it has ended.

`devicevm manager install` copies this file to /etc/libvirt/hooks/qemu.d, behind a line that says where the manager is:
it uses nothing but Python's own library, since it runs where devicevm may not be installed any more. It never asks
libvirt anything: the one who waits for it is libvirt (https://libvirt.org/hooks.html).
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any, BinaryIO
from xml.parsers import expat

VERSION = 2
NAMESPACE = "urn:devicevm:v1"
MAX_XML = 16 * 1024 * 1024
MAX_ANSWER = 64 * 1024
MAX_WORDS = 3000
"""Characters of a reason: libvirt puts them into one line of its error."""
STARTING = 600.0
"""Seconds for all device VMs of a client. Many clients may start at once, and guests boot no more at once than there
are cores."""
TELLING = 5.0
"""Seconds for what waits for nothing."""


class Refused(Exception):
    """Why the client cannot start."""


def client_of(xml: bytes) -> tuple[str, str, list[str]] | None:
    """UUID and owner of a domain that is a client of devicevm's, and its device VMs; None for any other domain."""
    found: list[str] = []
    device_vms: list[str] = []
    path: list[str] = []
    uuid: list[str] = []

    def begin(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        if tag == f"{NAMESPACE} domain" and attributes.get("role") == "client":
            found.append(attributes.get("owner", ""))
        elif tag == f"{NAMESPACE} device" and found and attributes.get("deviceVM"):
            device_vms.append(attributes["deviceVM"])

    def text(characters: str) -> None:
        if path == ["domain", "uuid"]:
            uuid.append(characters)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = begin
    parser.CharacterDataHandler = text
    parser.EndElementHandler = lambda _tag: path.pop()
    parser.Parse(xml, True)
    if not found:
        return None
    return "".join(uuid).strip(), found[0], sorted(set(device_vms))


def ask(path: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The manager's answer to one line of JSON; Refused when there is none in time."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(TELLING)
        try:
            peer.connect(path)
        except OSError as error:
            raise Refused("devicevm's manager does not run: systemctl start devicevm-manager") from error
        peer.settimeout(seconds)
        try:
            peer.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n") and len(data) < MAX_ANSWER:
                part = peer.recv(MAX_ANSWER)
                if not part:
                    raise Refused("devicevm's manager has ended meanwhile: systemctl status devicevm-manager")
                data += part
        except OSError as error:
            raise Refused(
                f"devicevm's manager has not answered within {seconds:g} s: systemctl status devicevm-manager"
            ) from error
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise Refused("devicevm's manager answers something else: systemctl restart devicevm-manager")
    return answer


def main(path: str, arguments: list[str], xml: BinaryIO) -> int:
    """What libvirt calls: NAME OPERATION SUB-OPERATION REASON, with the domain's XML on standard input.

    Only `prepare` may fail, and then the client does not start.
    """
    name, operation = arguments[1:3]
    wanted = {"prepare": "prepare", "reconnect": "use", "release": "release"}.get(operation)
    document = xml.read(MAX_XML)
    if wanted is None or NAMESPACE.encode() not in document:
        return 0
    try:
        client = client_of(document)
        if client is None:
            return 0
        # Its name may have been another when its device VMs were made for it.
        uuid, owner, device_vms = client
        request = {"op": wanted, "hook": VERSION, "client": uuid, "owner": owner, "deviceVMs": device_vms}
        answer = ask(path, request, STARTING if wanted == "prepare" else TELLING)
        if answer.get("error"):
            raise Refused("\n".join(filter(None, (str(answer["error"]), str(answer.get("hint", ""))))))
    except (Refused, ValueError, expat.ExpatError) as error:
        if wanted == "prepare":
            sys.stderr.write(f"{name} cannot start: {str(error)[:MAX_WORDS]}\n")
            return 1
    return 0
