"""Fitting an index's transform on its own rows, without labels, and what becomes of it as the index changes.

The transform is fitted on at most `SAMPLE` rows: those whose ids have the lowest hashes, in the order of the ids. So
it depends on which rows there are and on nothing else: not on their order, on the commits that brought them, or on how
often a build was interrupted. Until it is fitted the encoder's own vectors are searched, and one commit changes over.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.segments import id_hashes
from retr.index.disk.side_data import Change, Kind, NewVectors
from retr.index.errors import EncoderNotFoundError, IndexCorruptError, UsageError
from retr.index.json_fields import Fields, stored
from retr.index.machine.waiting import waiting
from retr.index.vectors import unit
from retr.retrieval.encoders.registry import find_spec
from retr.retrieval.transforms.transform import (
    FEATURES,
    FILE,
    NOTE,
    WHITENING,
    Transform,
    features_of,
    find_transform,
    stored_features,
)
from retr.retrieval.transforms.whitening import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.index.rows.draft import Draft
    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.encoders.base import BaseEncoder

#: Fewer rows get no transform; it is fitted on at most so many.
LEAST_ROWS, SAMPLE = 30, 20_000
#: An index this many times larger than it was when its transform was fitted should have it fitted again.
GROWN = 4
# Rows that a check compares with what the transform makes of their features, and how far they may be apart.
_CHECKED, _APART = 256, 4e-3
_NOTED = ("the note of the transform", "run `retr index refit`")


@dataclass(frozen=True)
class Wanted:
    """What the manifest notes of a transform: how it is to be fitted and, once it is, on what.

    Attributes
    ----------
    dim, power
        As `whitening.fit` takes them; ``None`` for its own.
    rows, sample
        How many rows the index had, and how many of them it was fitted on; 0 as long as it is not fitted.
    """

    dim: int | None = None
    power: float | None = None
    rows: int = 0
    sample: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {"name": WHITENING, **asdict(self)}

    @classmethod
    def of(cls, snapshot: Snapshot) -> Wanted | None:
        """Read the note of an index; ``None`` where it is to have no transform."""
        if NOTE not in snapshot.manifest.extra:
            return None
        with stored(*_NOTED):
            noted = Fields(snapshot.manifest.extra[NOTE])
            noted.choice("name", (WHITENING,))
            return cls(
                dim=noted.whole("dim", least=1) if noted.has("dim") else None,
                power=noted.number("power") if noted.has("power") else None,
                rows=noted.whole("rows", 0),
                sample=noted.whole("sample", 0),
            )

    @property
    def given(self) -> dict[str, Any]:
        """What of ``dim`` and ``power`` is asked for."""
        asked = {"dim": self.dim, "power": self.power}
        return {name: value for name, value in asked.items() if value is not None}


def require_transformable(encoder: EncoderInfo) -> None:
    """Raise `UsageError` where vectors of an encoder are not transformed."""
    what = None
    if encoder.text:
        what = "has a text side, and its words would lie elsewhere than its pictures"
    elif encoder.similarity != "cosine":
        what = "is compared by the dot product"
    elif encoder.own.dim < 2:
        what = "gives one number"
    if what is not None:
        raise UsageError(f"no transform is put behind the encoder {encoder.name!r}: it {what}")


def is_transformed(encoder: BaseEncoder) -> bool:
    """Return whether a new index of an encoder has a transform unless told otherwise."""
    try:
        spec, _ = find_spec(encoder.info.name)
        require_transformable(encoder.info)
    except (EncoderNotFoundError, UsageError):
        return False
    return spec.transform


def require_numbers(dim: int | None, power: float | None) -> None:
    """Raise `UsageError` where a transform cannot be fitted so."""
    whole = isinstance(dim, int) and not isinstance(dim, bool)
    if dim is not None and not (whole and dim >= 1):
        raise UsageError(f"a transform keeps a whole number of dimensions, at least 1, got: {dim!r}")
    if power is not None and not 0 <= power <= 2:
        raise UsageError(f"the power of a whitening lies between 0 and 2, got: {power!r}")


def sampled(snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows to fit on, of some, in the order of their ids: int64."""
    ids = snapshot.ids(rows)
    if len(rows) > SAMPLE:
        lowest = np.argsort(id_hashes(ids), kind="stable")[:SAMPLE]
        rows, ids = rows[lowest], [ids[at] for at in lowest.tolist()]
    return rows[sorted(range(len(rows)), key=ids.__getitem__)]


def fitted(snapshot: Snapshot, rows: NDArray[np.int64], wanted: Wanted) -> tuple[Transform, Wanted]:
    """Fit a transform on some rows of an index, and say what it was fitted on.

    Raises
    ------
    UsageError
        They are too few, or have one and the same vector.
    """
    if len(rows) < LEAST_ROWS:
        raise UsageError(
            f"a transform is fitted on {LEAST_ROWS} rows at least, got {len(rows)}",
            hint="the encoder's own vectors are searched until then",
        )
    chosen = sampled(snapshot, rows)
    found = Transform(fit(stored_features(snapshot, chosen), **wanted.given))
    return found, replace(wanted, rows=len(rows), sample=len(chosen))


def change_over(draft: Draft[Any], rows: NDArray[np.int64], wanted: Wanted) -> list[str]:
    """Fit a draft's transform on some of its rows and put all rows through it; the next commit changes over.

    Returns
    -------
    list
        The kinds of side data of which something was dropped, since they were made for the vectors of before.

    Raises
    ------
    UsageError
        As `fitted`; nothing is changed then.
    """
    before = draft.preview()
    found, noted = fitted(before, rows, wanted)
    encoder = before.manifest.encoder
    new = NewVectors(found.behind(encoder), lambda some: found.whitening(stored_features(before, some)), found)
    lost = draft.replace_vectors(new, Transforms())
    install(draft, found, noted, lambda some: stored_features(before, some), encoder.own.dim)
    return lost


def install(
    draft: Draft[Any],
    transform: Transform | None,
    noted: Wanted,
    features: Callable[[NDArray[np.int64]], NDArray[np.float16]],
    dim: int,
) -> None:
    """Write a transform beside vectors that went through it, or note that one is wanted.

    Parameters
    ----------
    features
        Returns the features ``(n, dim)`` of some rows; asked where the draft holds none.
    dim
        Of the encoder's own vectors.
    """
    kind = Transforms()
    if transform is not None:
        if FEATURES not in draft.draft.row_arrays:
            draft.add_array(FEATURES, kind, dtype="float16", dim=dim, fill=features)
        draft.add_file(FILE, transform.to_bytes(), kind=kind)
    draft.note(NOTE, noted.to_json(), kind=kind)


def finish(draft: Draft[Any]) -> list[str]:
    """Fit the transform of an index that is to have one and has none yet; say what was done, or why not.

    The draft must hold no uncommitted rows.
    """
    store = draft.store
    wanted = Wanted.of(store)
    if wanted is None or not len(store):
        return []
    if store.manifest.encoder.transform is not None:
        return list(due(store))
    if len(store) < LEAST_ROWS:
        few = f"{len(store)} rows are too few to fit a transform on, which takes {LEAST_ROWS}"
        return [f"{few}: the encoder's own vectors are searched"]
    try:
        with waiting(f"fitting a transform on {min(len(store), SAMPLE)} rows"):
            change_over(draft, store.live_rows(), wanted)
    except UsageError as error:
        return [f"no transform was fitted: {error.message}"]
    return [f"{len(store)} rows have a transform fitted on them ({WHITENING}, {draft.draft.encoder.dim} dimensions)"]


def due(snapshot: Snapshot) -> tuple[str, ...]:
    """Return why a transform should be fitted again, a phrase, or nothing."""
    wanted = Wanted.of(snapshot)
    if wanted is None or not wanted.rows or len(snapshot) < GROWN * wanted.rows:
        return ()
    grown = f"the transform was fitted when the index had {wanted.rows} rows, and it has {len(snapshot)}"
    return (f"{grown}: `retr index refit` fits it again",)


def described(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return what ``info`` says of the transform, JSON-ready; ``None`` where there is none and none is wanted."""
    wanted, encoder = Wanted.of(snapshot), snapshot.manifest.encoder
    if wanted is None:
        return None
    if encoder.transform is None:
        return {"name": WHITENING, "fitted": False, "needs_rows": LEAST_ROWS}
    return {
        "name": WHITENING,
        "fitted": True,
        "of_dim": encoder.transform.dim,
        "rows": wanted.rows,
        "sample": wanted.sample,
        "sha256": encoder.transform.sha256[:12],
        "refit_due": bool(due(snapshot)),
    }


def append_arrays(snapshot: Snapshot, vectors: NDArray[Any], kept: NDArray[np.bool_]) -> tuple[Any, dict[str, Any]]:
    """Return what a writer appends for the encoder's own vectors of new rows: vectors, and row arrays.

    Parameters
    ----------
    vectors
        Floats ``(n, d)``.
    kept
        bool ``(n,)``: those that are features of the index already (`stored_features`), of rows with the same bytes.
    """
    transform = find_transform(snapshot)
    if transform is None:
        return vectors, {}
    features = features_of(vectors)
    features[kept] = vectors[kept].astype(np.float16)
    return transform.whitening(features), {FEATURES: features}


class Transforms(Kind):
    """The transform and the features beside it, as a kind of side data."""

    name = "transform"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads both, and whether rows lie where the transform leads."""
        return {NOTE: lambda: Wanted.of(snapshot), FILE: lambda: _require_led(snapshot)}

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Return why it should be fitted again; it counts until then."""
        return due(snapshot)

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        """Fit it again without the rows."""
        wanted = Wanted.of(snapshot)
        if wanted is None or not wanted.rows:
            return Change()
        encoder = snapshot.manifest.encoder
        try:
            found, noted = fitted(snapshot, np.setdiff1d(snapshot.live_rows(), gone), wanted)
        except UsageError:
            # what is left is too few
            noted = replace(wanted, rows=0, sample=0)
            return Change(
                {FILE: None},
                {NOTE: noted.to_json()},
                (FEATURES,),
                NewVectors(encoder.own, lambda some: unit(stored_features(snapshot, some)), unit),
                ("the transform that was fitted on them (the encoder's own vectors are searched)",),
            )
        new = NewVectors(found.behind(encoder), lambda some: found.whitening(stored_features(snapshot, some)), found)
        said = "the transform that was fitted on them (it was fitted again on the others)"
        return Change({FILE: found.to_bytes()}, {NOTE: noted.to_json()}, vectors=new, said=(said,))


def _require_led(snapshot: Snapshot) -> None:
    """Raise `IndexCorruptError` where rows lie elsewhere than the transform leads their features."""
    transform = find_transform(snapshot)
    if transform is None:
        return
    live = snapshot.live_rows()
    rows = live[:: -(-len(live) // _CHECKED) or 1]
    led = transform.whitening(stored_features(snapshot, rows))
    if not np.allclose(led, snapshot.vectors(rows).astype(np.float32), rtol=0, atol=_APART):
        raise IndexCorruptError("the vectors are not those of the index's transform", hint="run `retr index refit`")
