"""What this machine's processor can do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from retr import system

_AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@cache
def flags() -> frozenset[str]:
    """Return the names of the processor's features as Linux has them; none are known elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.partition("flags")[2].partition("\n")[0].split())


@cache
def threads() -> int:
    """Return how many threads a search may use: as many as `OMP_NUM_THREADS` gives other libraries, or all cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else system.processors()


def has_fast_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 matrices faster than float32 ones.

    AVX-512 BF16 alone does not: with the copy into bfloat16 it takes half as long again as the float32 product.
    """
    return "amx_bf16" in flags()


def openblas_kernels() -> str | None:
    """Return OpenBLAS's name for the kernels with the widest registers that this processor has."""
    if flags() >= _AVX512:
        return "SkylakeX"
    return "Haswell" if flags() >= {"avx2", "fma"} else None
