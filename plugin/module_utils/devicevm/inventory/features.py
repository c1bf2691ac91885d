"""Which instruction set extensions guests of a host can have. Pure."""

from __future__ import annotations

from .host import Host


def features_for_guests(host: Host) -> frozenset[str]:
    """The extensions, in libvirt's names, that a guest with the host's accelerator can have.

    Domain capabilities tell it best: TCG gives some that the processor lacks, and lacks some that it has. Where there
    are none, the host's own extensions serve for accelerators that hand them through; of TCG nothing is known then.
    """
    told = [
        support.host_features
        for support in host.support
        if support.arch == host.arch and support.accelerator == host.accelerator
    ]
    if told:
        return frozenset(feature for features in told for feature in features)
    return frozenset() if host.accelerator == "tcg" else frozenset(host.cpu_features)
