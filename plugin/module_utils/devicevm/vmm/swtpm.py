"""What libvirt wants on the host before it gives a client a TPM, though nothing of it runs there."""

from __future__ import annotations

import shutil

from ..domain import DomainSpec
from ..errors import DevicevmError
from ..frontend.registry import FRONTENDS

_PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_ioctl")


def check_swtpm(spec: DomainSpec) -> None:
    """DevicevmError when a client has a TPM that libvirt will refuse, in words that say less than this."""
    if not any(FRONTENDS[one.frontend].protocol == "tpm" for one in spec.attachments if one.frontend in FRONTENDS):
        return
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    if missing:
        raise DevicevmError(
            f"{spec.name} has a TPM, and libvirt allows that only where {', '.join(missing)} can be found on the host",
            hint="apt-get install swtpm-tools; then restart libvirt's daemon, which remembers",
        )
