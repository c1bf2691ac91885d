"""What a VMM driver may be able to do, as named in the inventory's `vmm.supports`."""

from __future__ import annotations

GUESTS = "guests"
"""Domains run real guests: emulators can be probed. (libvirt's test driver has none.)"""

LIVE_DEVICES = "live-devices"
"""Devices can be added to and removed from a running domain."""

STORES = "stores"
"""Files and block devices of the host can be backing storage."""

VOLUMES = "volumes"
"""Storage pools and volumes can be backing storage."""

ON_REQUEST = "on-request"
"""Device VMs come up when their client is started, whoever starts it."""

INSTALL = "devicevm manager install"
"""What makes a host able to do that."""
