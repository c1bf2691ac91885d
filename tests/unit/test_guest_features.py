"""Names of instruction set extensions, libvirt's and the kernel's."""

from __future__ import annotations

import pytest
from devicevm.guest.features import missing_features


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ("aes", "aes"),
        ("sse4.1", "sse4_1"),
        ("sha-ni", "sha_ni"),
        ("pclmuldq", "pclmulqdq"),
        ("avx512vnni", "avx512_vnni"),
    ],
)
def test_an_extension_is_known_by_the_kernels_name(asked: str, flag: str) -> None:
    assert missing_features([asked], ["fpu", flag]) == ()
    assert missing_features([asked, "fpu"], ["fpu"]) == (asked,)
