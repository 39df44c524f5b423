"""Fit the transform of an index again, on the features it keeps: no picture is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.index.machine.waiting import waiting
from retr.index.rows.check import stale
from retr.retrieval.labels.trained_rows import HEAD_FILE
from retr.retrieval.transforms.fitting import SAMPLE, Wanted, change_over, require_numbers, require_transformable

if TYPE_CHECKING:
    from retr.retrieval.index_like import IndexLike


@dataclass(frozen=True)
class Refitted:
    """What `refit` did.

    Attributes
    ----------
    rows, sample
        How many rows the index has, and how many of them the transform was fitted on.
    dim
        Length of the vectors that are searched now.
    dropped
        The kinds of side data of which something was dropped: made for the vectors of before, it means nothing now.
    stale
        What of the rest is out of date, a phrase each.
    """

    rows: int
    sample: int
    dim: int
    dropped: tuple[str, ...]
    stale: tuple[str, ...]


def refit(index: IndexLike, *, dim: int | None = None, power: float | None = None) -> Refitted:
    """Fit the transform of an index again on all its rows, or a first one, and change over in one commit.

    Readers keep what they see until they `refresh`. A process killed in it leaves the index as it was. Accelerators
    are dropped, as is whatever else was made for the vectors of before and does not itself find that it is stale.

    Parameters
    ----------
    dim
        At most so many dimensions are kept; by default as before. There are always fewer than the encoder's own
        vectors have, and than there are rows.
    power
        Of the variance by which each direction is divided: 0 turns and cuts, 1 whitens fully; by default as before.

    Raises
    ------
    UsageError
        The index has too few rows, or is an adapted one, or vectors of its encoder are not transformed.
    RetrError
        It holds side data that are not known here.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> _ = index.add(index.path.parent, name="again")
    >>> index.refit(dim=8).dim, index.search(id="healthy/P01-left.png", k=1).ids
    (8, ['again/healthy/P05-right.png'])
    """
    require_numbers(dim, power)
    with index.store.writer() as writer:
        store = writer.store
        if HEAD_FILE in store.manifest.files:
            hint = "refit the index it was made from, and adapt that one again"
            raise UsageError("the vectors of an adapted index are led by its head", hint=hint)
        require_transformable(store.manifest.encoder)
        before = Wanted.of(store) or Wanted()
        wanted = replace(before, dim=dim or before.dim, power=before.power if power is None else power)
        rows = store.live_rows()
        with waiting(f"fitting a transform on {min(len(rows), SAMPLE)} rows"):
            lost = change_over(writer, rows, wanted)
        after = writer.commit()
    index.refresh()
    noted = Wanted.of(after)
    assert noted is not None
    return Refitted(len(after), noted.sample, after.manifest.encoder.dim, tuple(lost), tuple(stale(after)))
