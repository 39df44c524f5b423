"""When a search leaves the CPU, on machines with and without GPUs."""

from __future__ import annotations

from types import SimpleNamespace

from retr.index.accelerators.config import IVF, Flat
from retr.index.gpu import devices
from retr.index.gpu.placement import Placement


def test_what_has_no_form_on_a_gpu_stays_on_the_cpu_however_often_it_is_asked():
    """Else every question would look for GPUs first, and go the longer way."""
    snapshot = SimpleNamespace(
        n_total=1_000_000, manifest=SimpleNamespace(encoder=SimpleNamespace(dim=512)), once=lambda _, make: make()
    )
    often = 1 << 20
    assert devices.worthwhile(often, snapshot.n_total, 512)
    placement = Placement("auto")
    for _ in range(3):
        assert placement.aside(snapshot, IVF(), often)
    assert not placement.aside(snapshot, Flat(), often)
