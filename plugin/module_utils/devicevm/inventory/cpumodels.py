"""What a CPU model's name stands for: libvirt names a model and lists only the features beyond it.

Whether a host has `avx2` cannot be answered from its capabilities alone: `Haswell` says it without a word.
The table is libvirt 9.0's x86 CPU map (src/cpu_map, LGPL-2.1-or-later), written as differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

# `model: base features... -features...`, the base always above; `.` = none.
_X86 = """
486: . fpu pse vme
pentium: 486 cx8 de mce mmx msr tsc
pentiumpro: pentium apic cmov fxsr pae pat pge sep sse sse2 -vme
pentium2: pentiumpro mca mtrr pse36 vme -apic -sse -sse2
qemu32: pentiumpro pni
pentium3: pentium2 sse
kvm32: qemu32 clflush mca mtrr pse36
athlon: pentium3 3dnow 3dnowext apic mmxext sse2 -mca
coreduo: kvm32 monitor nx vme -pse36
Opteron_G1: kvm32 lm nx syscall
cpu64-rhel5: Opteron_G1
n270: coreduo ssse3
kvm64: Opteron_G1 cx16
Conroe: Opteron_G1 lahf_lm ssse3
cpu64-rhel6: kvm64 lahf_lm
qemu64: kvm64 svm
core2duo: Conroe monitor vme -lahf_lm
Opteron_G2: cpu64-rhel6 rdtscp svm
Penryn: Conroe cx16 sse4.1
Nehalem: Penryn popcnt sse4.2
phenom: Opteron_G1 3dnow 3dnowext fxsr_opt mmxext monitor svm
Nehalem-IBRS: Nehalem spec-ctrl
Westmere: Nehalem aes
Westmere-IBRS: Nehalem-IBRS aes
Opteron_G3: Opteron_G2 abm misalignsse monitor popcnt sse4a
SandyBridge: Westmere avx pclmuldq rdtscp tsc-deadline x2apic xsave
SandyBridge-IBRS: SandyBridge spec-ctrl
IvyBridge: SandyBridge erms f16c fsgsbase rdrand smep vme
Opteron_G4: SandyBridge 3dnowprefetch abm fma4 misalignsse pdpe1gb sse4a svm xop -tsc-deadline -x2apic
IvyBridge-IBRS: IvyBridge spec-ctrl
Opteron_G5: Opteron_G4 f16c fma tbm
Haswell-noTSX: IvyBridge avx2 bmi1 bmi2 fma invpcid movbe pcid -f16c -rdrand -vme
Haswell-noTSX-IBRS: Haswell-noTSX spec-ctrl
Haswell: Haswell-noTSX hle rtm
Haswell-IBRS: Haswell spec-ctrl
Broadwell-noTSX: Haswell-noTSX 3dnowprefetch adx rdseed smap
Broadwell-noTSX-IBRS: Broadwell-noTSX spec-ctrl
Broadwell: Broadwell-noTSX hle rtm
Broadwell-IBRS: Broadwell spec-ctrl
Skylake-Client-noTSX-IBRS: Broadwell-noTSX-IBRS abm arat f16c mpx rdrand vme xgetbv1 xsavec xsaveopt
Skylake-Client: Skylake-Client-noTSX-IBRS hle rtm -spec-ctrl
Dhyana: Skylake-Client-noTSX-IBRS clflushopt cr8legacy fxsr_opt ibpb misalignsse mmxext monitor osvw pdpe1gb sse4a
    svm -aes -erms -invpcid -mpx -pcid -pclmuldq -spec-ctrl -tsc-deadline -x2apic
Skylake-Client-IBRS: Skylake-Client spec-ctrl
Snowridge: IvyBridge-IBRS 3dnowprefetch arat arch-capabilities cldemote clflushopt clwb core-capability gfni movbe
    movdir64b movdiri pdpe1gb rdseed sha-ni smap split-lock-detect ssbd umip xgetbv1 xsavec xsaveopt -avx -f16c
EPYC: Dhyana aes pclmuldq sha-ni -ibpb
EPYC-IBPB: EPYC ibpb
Skylake-Server-noTSX-IBRS: Skylake-Client-noTSX-IBRS avx512bw avx512cd avx512dq avx512f avx512vl clwb pdpe1gb
Skylake-Server: Skylake-Server-noTSX-IBRS hle rtm -spec-ctrl
Skylake-Server-IBRS: Skylake-Server spec-ctrl
Cascadelake-Server-noTSX: Skylake-Server-noTSX-IBRS avx512vnni clflushopt ssbd
Cascadelake-Server: Cascadelake-Server-noTSX hle rtm
Icelake-Client-noTSX: Skylake-Client-noTSX-IBRS avx512-vpopcntdq avx512bitalg avx512vbmi avx512vbmi2 avx512vnni
    gfni intel-pt pku ssbd umip vaes vpclmulqdq wbnoinvd
EPYC-Rome: EPYC-IBPB amd-stibp clwb clzero npt nrip-save perfctr_core rdpid umip wbnoinvd xsaveerptr -monitor
Icelake-Client: Icelake-Client-noTSX hle rtm
Cooperlake: Cascadelake-Server arch-capabilities avx512-bf16 ibrs-all mds-no pku pschange-mc-no rdctl-no
    skip-l1dfl-vmentry stibp taa-no -mpx
Icelake-Server-noTSX: Icelake-Client-noTSX avx512bw avx512cd avx512dq avx512f avx512vl clflushopt clwb la57
    pdpe1gb
EPYC-Milan: EPYC-Rome amd-ssbd erms fsrm ibrs invpcid pcid pku svme-addr-chk xsaves
Icelake-Server: Icelake-Server-noTSX hle rtm
"""


def expand_features(model: str, listed: Iterable[str], disabled: Iterable[str] = ()) -> tuple[str, ...]:
    """All features of a CPU, sorted: the model's, plus those `listed` beside it, less those `disabled`.

    A model that is not in the table (newer, or of another architecture) adds nothing: what is listed is known,
    the rest is not, and the planner then finds a feature missing rather than promise what it has not seen.
    """
    return tuple(sorted((_models().get(model, frozenset()) | set(listed)) - set(disabled)))


@lru_cache(maxsize=1)
def _models() -> dict[str, frozenset[str]]:
    models: dict[str, frozenset[str]] = {}
    # A continued line starts with white space.
    for line in _X86.strip().replace("\n    ", " ").splitlines():
        name, base, *words = line.split()
        gone = {word[1:] for word in words if word.startswith("-")}
        added = {word for word in words if not word.startswith("-")}
        models[name.rstrip(":")] = frozenset((models.get(base, frozenset()) | added) - gone)
    return models
