"""A start that comes while its domain is being undefined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.registry import open_driver

pytest.importorskip("libvirt", reason="libvirt's Python binding is not installed")
pytestmark = pytest.mark.libvirt

OURS = (
    "<domain type='test'><name>late</name><memory>32768</memory><os><type>hvm</type></os>"
    "<metadata><d:domain xmlns:d='urn:devicevm:v1' owner='lab' role='client'/></metadata></domain>"
)


class Late:
    """A domain whose start reaches the daemon just before it is undefined: no caller can see that coming."""

    def __init__(self, domain: Any) -> None:
        self.domain = domain

    def __getattr__(self, name: str) -> Any:
        return getattr(self.domain, name)

    def undefineFlags(self, flags: int) -> None:
        self.domain.create()
        self.domain.undefineFlags(flags)


@pytest.fixture
def driver() -> Iterator[LibvirtDriver]:
    with open_driver("test:///default") as made:
        assert isinstance(made, LibvirtDriver)
        yield made


def test_a_domain_that_was_started_while_it_was_undefined_is_stopped(
    driver: LibvirtDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = driver.connection.defineXML(OURS)
    try:
        monkeypatch.setattr(driver, "_ours", lambda name: Late(domain))
        driver.undefine("late")
        assert "late" not in driver.domain_names()
    finally:
        if "late" in driver.domain_names():
            driver.connection.lookupByName("late").destroy()
