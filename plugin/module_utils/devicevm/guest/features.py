"""Instruction set extensions by the names that libvirt gives them and those that a guest's kernel shows."""

from __future__ import annotations

from collections.abc import Iterable

# Where the two differ by more than a dash or a dot (libvirt: src/cpu_map; Linux: arch/x86/include/asm/cpufeatures.h).
_OTHERWISE = {
    "avx512bitalg": "avx512_bitalg",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "cr8legacy": "cr8_legacy",
    "pclmuldq": "pclmulqdq",
    "tsc-deadline": "tsc_deadline_timer",
}


def missing_features(asked: Iterable[str], flags: Iterable[str]) -> tuple[str, ...]:
    """The extensions, in libvirt's names, that a guest with these flags in /proc/cpuinfo does not have."""
    there = set(flags)
    return tuple(name for name in asked if name not in there and _in_linux(name) not in there)


def _in_linux(name: str) -> str:
    return _OTHERWISE.get(name, name.replace("-", "_").replace(".", "_"))
