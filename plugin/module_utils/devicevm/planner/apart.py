"""Who is not together in one device VM: by its declaration, and since two clients may not be on one host."""

from __future__ import annotations

from collections.abc import Iterable

from ..manifest.topology import Client, DeviceVM


def selects(labels: dict[str, str], client: Client) -> bool:
    """Whether a selector, which is not empty, matches a client."""
    return bool(labels) and labels.items() <= client.labels.items()


def repel(one: Client, other: Client) -> bool:
    """Whether two clients may not be on one host."""
    return one.name != other.name and (selects(one.anti_affinity, other) or selects(other.anti_affinity, one))


def kept_apart(declared: DeviceVM | None, client: Client, other: Client) -> bool:
    """Whether two clients may not be served by one device VM, and so not share any."""
    if client is other:
        return False
    shared = declared.clients_apart if declared else {}
    return repel(client, other) or (client.name != other.name and selects(shared, client) and selects(shared, other))


def classes_clash(declared: DeviceVM | None, class_: str, others: Iterable[str]) -> bool:
    """Whether a device of `class_` may not be in one device VM with devices of the classes `others`."""
    apart = declared.classes_apart if declared else ()
    return class_ in apart and any(other != class_ and other in apart for other in others)
