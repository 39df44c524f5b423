"""What is known of a processor."""

from __future__ import annotations

import pytest

from retr.index.scan import processor


@pytest.mark.parametrize(("flags", "kernels"), [({"avx2", "fma"}, "Haswell"), ({"sse2"}, None)])
def test_kernels_fit_the_processor(monkeypatch, flags, kernels):
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags))
    assert processor.openblas_kernels() == kernels
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags | processor._AVX512))
    assert processor.openblas_kernels() == "SkylakeX"
