"""libvirt's Python binding: the one place that imports it, opens connections and translates its errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import DevicevmError
from ..driver import VmmError
from ..places import Places
from . import embed

if TYPE_CHECKING:
    import libvirt

LOG = "LIBVIRT_LOG_OUTPUTS"
_loop_lock = threading.Lock()
_loop: threading.Thread | None = None
_validation_lock = threading.Lock()


def binding() -> Any:
    """libvirt's Python module, with its event loop running and its own printing to stderr switched off."""
    libvirt = _import()
    _run_event_loop(libvirt)
    return libvirt


def _import() -> Any:
    # The embedded driver is a daemon's code and logs to stderr. What goes wrong is raised besides; whoever
    # wants the log names a place for it. libvirt reads the variable once, when it is imported.
    quiet = LOG not in os.environ
    if quiet:
        os.environ[LOG] = "4:file:/dev/null"
    try:
        import libvirt
    except ImportError as error:
        raise DevicevmError(
            "libvirt's Python binding is not there for this Python",
            hint="apt install python3-libvirt, and use /usr/bin/python3 (or a venv with --system-site-packages)",
        ) from error
    finally:
        if quiet:
            del os.environ[LOG]
    return libvirt


def _run_event_loop(libvirt: Any) -> None:
    """Once per process and before the first connection: libvirt takes no event loop later than that.

    The embedded driver starts no domain without it; the others need it to notice a dead connection.
    """
    global _loop  # noqa: PLW0603 - libvirt's event loop is one per process
    with _loop_lock:
        if _loop is not None:
            return
        # The handler's default prints each error on stderr, besides raising it.
        libvirt.registerErrorHandler(_ignore, None)
        libvirt.virEventRegisterDefaultImpl()

        def turn() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        _loop = threading.Thread(target=turn, name="libvirt-events", daemon=True)
        _loop.start()


def _ignore(context: object, error: object) -> None:
    """libvirt's error handler: the error is raised as an exception as well."""


@contextmanager
def vmm_words(doing: str) -> Iterator[None]:
    """Inside, a libvirtError becomes a VmmError: `doing` (cannot start web), then libvirt's own words."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise VmmError(f"{doing}: {error.get_error_message() or error}") from error


def open_connection(places: Places, *, wait: float = 0.0) -> libvirt.virConnect:
    """A connection to the VMM at `places.uri`.

    An embedded VMM is one process's at a time: another opener is waited for, at most `wait` seconds.
    """
    libvirt = binding()
    if places.embed_root is None:
        with vmm_words(f"cannot connect to {places.uri}"):
            return libvirt.open(_daemons_uri(places.uri))
    with vmm_words(f"cannot open the embedded VMM at {places.embed_root}"):
        return embed.connect(places.uri, places.embed_root, wait)


def close_connection(connection: libvirt.virConnect, places: Places) -> None:
    """End a connection; domains go on."""
    with vmm_words(f"cannot close the connection to {places.uri}"):
        if places.embed_root is None:
            connection.close()
        else:
            embed.close(places.embed_root)


def define_validated(connection: libvirt.virConnect, xml: str) -> libvirt.virDomain:
    """Define a domain whose XML libvirt's schemas must allow; libvirtError when they do not.

    One at a time: the XML library of a daemon that has validated nothing yet sets its data types up at the first
    validation, and another that comes meanwhile finds them missing. Other users of the daemon may be in the midst of
    that, so an error about the schema itself, which says nothing about the domain, is not taken at its word at once.
    """
    import libvirt

    with _validation_lock:
        try:
            return connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        except libvirt.libvirtError as error:
            if "Unable to parse RNG" not in str(error):
                raise
            return connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def _daemons_uri(uri: str) -> str:
    """The URI that reaches the daemon, even in a process that has opened an embedded VMM: from then on libvirt
    would look for `qemu:///system` in this process."""
    return f"qemu+unix{uri.removeprefix('qemu')}" if uri.startswith("qemu:") else uri


def answers(uri: str) -> bool:
    """Whether something answers at `uri`."""
    libvirt = binding()
    try:
        libvirt.open(_daemons_uri(uri)).close()
    except libvirt.libvirtError:
        return False
    return True
