"""Can what was found for a device VM run it: is its code able to emulate the devices, and its image on the host?"""

from __future__ import annotations

from ..domain import DomainSpec
from ..errors import DevicevmError
from ..inventory.host import Host
from ..inventory.supports import GUESTS
from ..manifest.template import expand, template_values
from ..manifest.topology import Boot
from .code import Code
from .grouping import Unit
from .requests import Want
from .resources import Footing
from .specify import image_named, keeps_image


def why_not_run(unit: Unit, footing: Footing, host: Host) -> str:
    """Why a device VM cannot run on a footing that a host has for it; empty when it can."""
    return _why_not_emulate(footing.code, unit) or _lacks_image(unit, footing, host)


def why_not_boot(boot: Boot, host: Host) -> str:
    """Why a client cannot boot on a host; empty when it can, as far as that is known."""
    if not boot.guest_image:
        return ""
    image = image_named(host, boot.guest_image)
    if image and image.disk:
        return f"image {image.name} is a whole disk: name its file as boot.image"
    return _missing(boot.guest_image, "", host)


def _lacks_image(unit: Unit, footing: Footing, host: Host) -> str:
    if footing.code.firmware:
        return ""
    name, arch, there = footing.code.image or unit.image, footing.arch, unit.observed
    stays = there is not None and there.host == host.name and keeps_image(there, name, arch or host.arch)
    if stays:
        return ""
    image = image_named(host, name, arch)
    if image and not image.agent and (serviced := sorted({w.class_.name for w in unit.wants if w.class_.service})):
        return f"image {name} has no agent, which would run the service of {', '.join(serviced)}"
    return _missing(name, arch, host)


def _missing(name: str, arch: str, host: Host) -> str:
    """Why an image cannot be booted on a host, where that tells its images."""
    if GUESTS not in host.vmm.supports or image_named(host, name, arch):
        return ""
    option = f"--arch {arch} " if arch else ""
    built = f"image {name} for {arch}" if arch else f"image {name}"
    return f"{built} is not there: build it with 'devicevm image build {option}{name}'"


def _why_not_emulate(code: Code, unit: Unit) -> str:
    for want in unit.wants:
        if not (code.firmware or code.command or want.class_.program.command):
            return f"class {want.class_.name} has no program that would run on it"
        if reason := _lacks_value(code, want):
            return f"{want.client.name}/{want.device.name}: {reason}"
        if (code.firmware or code.design) and (want.device.store or want.device.memory):
            what = "firmware has no storage" if code.firmware else "its one backing disk is the design"
            return f"{want.client.name}/{want.device.name} has content, and {what}"
    if unit.kept and unit.observed and not _goes_on(unit.observed, code, unit.image):
        kept = unit.kept[0]
        return f"{kept.client}/{kept.name} is not declared here, and goes on as it is"
    return ""


def _lacks_value(code: Code, want: Want) -> str:
    """Why a command cannot be filled in for a device: a declared device VM may serve classes that it does not know."""
    if not code.command:
        return ""
    backed = bool(code.design or want.device.store or want.device.memory)
    try:
        expand(code.command, template_values(want.device, "0" if backed else ""))
    except DevicevmError as error:
        return error.message
    return ""


def _goes_on(spec: DomainSpec, code: Code, image: str) -> bool:
    """Whether emulators of which nothing is declared could go on under that code, whose program is not theirs; without
    one of its own, it is that of the classes, in their `image`."""
    return spec.firmware == code.firmware and spec.image.rpartition("-")[0] in ("", code.image or image)
