"""Which regions an index is to have: declared where it is made, and kept to by every build after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.regions.kind import Regions
from retr.retrieval.regions.layout import NOTE, OWN_REGIONS, Layout, choose
from retr.retrieval.transforms.whitening import DIM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.rows.draft import Draft
    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.transforms.fitting import Wanted


def declare(draft: Draft[Any], division: str, wanted: Wanted | None) -> None:
    """Declare regions for an index without rows; ``wanted`` is the transform that it is to have."""
    own = draft.draft.encoder.own.dim
    dim = None if wanted is None else min(wanted.dim or DIM, own)
    layout = choose(division, own_dim=own, dim=dim, vector_bytes=np.dtype(draft.draft.dtype).itemsize)
    kind = Regions()
    draft.note(NOTE, layout.to_json(), kind=kind)
    draft.add_array(OWN_REGIONS, kind, dtype="int8", dim=len(layout.boxes) * own)


def require_regions(store: Snapshot, regions: str | None) -> None:
    """Raise `UsageError` for other regions than an index has."""
    layout = Layout.of(store)
    if regions is not None and (layout is None or layout.division != regions):
        kept = "no regions" if layout is None else f"the regions {layout.division!r}"
        raise UsageError(f"the index has {kept}, got: {regions!r}", hint=f"`retr index regions {regions}` changes them")


def require_compared(encoder: BaseEncoder, regions: str | None) -> None:
    """Raise `UsageError` for regions where lengths of vectors count: they are kept as directions."""
    if regions is not None and encoder.info.similarity != "cosine":
        raise UsageError(
            f"regions are compared by their cosine, and vectors of {encoder.info.name!r} by the dot product",
            hint="leave --regions out",
        )


def require_here(regions: str | None, befores: Sequence[Snapshot | None], reader: object) -> None:
    """Raise `UsageError` where regions would be embedded in parts, or on other machines: only whole pictures are.

    ``reader`` is who reads elsewhere than in threads of this process, ``None`` for nobody.
    """
    kept = any(before is not None and Layout.of(before) is not None for before in befores)
    if reader is not None and (kept or regions is not None):
        raise UsageError("a build in parts, or on other machines, embeds no regions", hint="build in one process")
