"""Defining domains that libvirt validates: the first validations of a daemon must not meet."""

from __future__ import annotations

import threading
import time

import pytest

libvirt = pytest.importorskip("libvirt")

import libvirtmod  # noqa: E402 - the binding's own
from devicevm.vmm.libvirt.connection import define_validated  # noqa: E402 - it needs libvirt


class Daemon:
    """Answers with these errors, one a call, then with success."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        self.calls = self.inside = self.most = 0

    def defineXMLFlags(self, _xml: str, flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_DEFINE_VALIDATE
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.005)
        self.inside -= 1
        if self.errors:
            # What libvirt said last, to whatever test, would stand in place of these words.
            libvirtmod.virResetLastError()
            raise libvirt.libvirtError(self.errors.pop(0))


def test_a_schema_that_is_being_set_up_is_asked_again() -> None:
    daemon = Daemon("internal error: Unable to parse RNG /usr/share/libvirt/schemas/domain.rng: Error type")
    define_validated(daemon, "<domain/>")
    assert daemon.calls == 2


@pytest.mark.parametrize("errors", [["XML document failed to validate"], ["Unable to parse RNG"] * 2])
def test_other_errors_are_told(errors: list[str]) -> None:
    calls = len(errors)
    daemon = Daemon(*errors)
    with pytest.raises(libvirt.libvirtError):
        define_validated(daemon, "<domain/>")
    assert daemon.calls == calls


def test_one_at_a_time() -> None:
    daemon = Daemon()
    threads = [threading.Thread(target=define_validated, args=(daemon, "<domain/>")) for one in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (daemon.calls, daemon.most) == (8, 1)
