"""Novelty: the similarity threshold below which a picture is unlike the archive, and whether it is stale.

A fence (`retr.retrieval.stats.novelty`) is measured at the end of a build (`retr.retrieval.novelty_renewal`) and by
`retr calibrate`, and noted in the manifest. Where it no longer counts it is stale, which is said, and nothing is called
unlike by it. That of `calibrate` is noted with a fingerprint of all that it depends on, rows, their files, whose they
are, and the encoder with its head, and is stale where any of it has changed. That of a build counts until the archive
has changed much: each later build compares the rows then with those now, and measures it anew where fewer than `KEPT`
of them are the same; a query looks at their numbers alone.

Another camera alone can make a picture unlike an archive. With a column that names each row's camera every camera has
a fence of its own, and a picture is unlike only where it is below all of them: whichever camera it came from, no more
of its ordinary pictures are called unlike than that camera's fence states.

Pictures are compared by the encoder's own vectors (`retr.retrieval.raw_vectors`), whatever an index searches: on what
no row shows a transform has nothing. So a fence outlives the fitting of a transform.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.schema import ID
from retr.index.disk.side_data import Change, Kind, dropped
from retr.index.json_fields import Fields, stored
from retr.index.vectors import unit
from retr.retrieval.raw_vectors import nearest_own
from retr.retrieval.stats import novelty
from retr.retrieval.stats.novelty import LEAST_GROUPS, Fence
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store

#: The key of the note in the manifest, and that within it which a build's fence has.
NOVELTY_NOTE, SKETCH = "novelty", "sketch"
_NOTED = ("the fence of unlike pictures", "run `retr calibrate` again")
STALE = (
    "not known whether this is unlike the archive: the measurement of that is out of date; run `retr calibrate` again"
)
#: Of a fence that a build measured.
CHANGED = (
    "not known whether this is unlike the archive, which has changed much since that was measured: `retr index build` "
    "or `retr calibrate` measures it again"
)
#: A fence that a build measured counts as long as this share of the rows, of then and of now, is the same.
KEPT = 0.8
#: Of a vector that is given as it comes out of the index's transform.
UNTOLD = (
    "not known whether this is unlike the archive: that is told by the encoder's own vector, which was not given with "
    "what the index's transform made of it"
)
# More rows change the fence of nothing, nor do more of one patient.
_MOST_ROWS, _MOST_OF_A_GROUP = 5000, 50
# So many cameras are said; all are in the note.
_SHOWN = 20
# What the note says of the rows then: fingerprints, and of a build's fence how many there were, their setting, and a
# sketch of them (`retr.retrieval.novelty_renewal`).
_VERSIONS = ("files", "version", "live", "setting", SKETCH)
# What a fence depends on, of each row.
_OF_ROWS = ("id", "sha256", "mode")


@dataclass(frozen=True)
class Novelty:
    """Below which similarity to its nearest row a picture is unlike anything in the archive.

    Attributes
    ----------
    threshold
        ``None`` where there are fewer than `LEAST_GROUPS` groups: then nothing is called unlike.
    rate
        At most this share of new groups' pictures is called unlike, on average over archives.
    high
        In this archive so, with a confidence of 95 %.
    groups, rows
        How many were measured.
    unit
        The column that tells groups apart; ``None`` where each file stands alone.
    column, devices
        The column of cameras, and the fence of each; the key ``""`` has the rows without one.
    seen
        How many rows measured nothing, since the index's head was fitted on their patients.
    before_transform
        Whether similarities here are of the encoder's own vectors and not, as scores are, of what an index searches.
    """

    threshold: float | None
    rate: float
    high: float
    groups: int
    rows: int
    unit: str | None = None
    column: str | None = None
    devices: dict[str, Fence] | None = None
    seen: int = 0
    before_transform: bool = False

    def unlike(self, score: float) -> str | None:
        """Return why a picture with this similarity to its nearest row is unlike the archive; ``None`` if it is not."""
        if self.threshold is None or not score < self.threshold:
            return None
        camera = "or a camera that is not in it" if self.column else "or another camera"
        # what is stated of all says little of a camera with few patients
        most = max((one.rate for one in (self.devices or {}).values()), default=self.rate)
        of_few = f" ({percent(most)} of the smallest camera's)" if most > self.rate else ""
        return (
            f"unlike anything in this archive: {self._before}the nearest row scores {score:.3f}, and at most "
            f"{percent(self.rate)} of its own kind{of_few} score below {self.threshold:.3f}; another kind of picture, "
            f"{camera}"
        )

    @property
    def _before(self) -> str:
        return "before the transform " if self.before_transform else ""

    def says(self) -> Iterator[str]:
        """Yield what was measured, a line each."""
        who = "patients" if self.unit else "images"
        if self.threshold is None:
            less = f"; {self.seen} rows are left out: the head has seen their {who}" if self.seen else ""
            yield f"nothing is called unlike this archive: it takes {LEAST_GROUPS} {who}, {self.groups} are here{less}"
            return
        whose = "new patients" if self.unit else "its own kind"
        yield (
            f"a picture whose nearest row {self._before}scores below {self.threshold:.3f} is called unlike this "
            f"archive: at most {percent(self.rate)} of the pictures of {whose} are (of this archive at most "
            f"{percent(self.high)}, with 95 % confidence), measured on {self.groups} {who}"
        )
        for value, one in sorted((self.devices or {}).items(), key=lambda item: -item[1].groups)[:_SHOWN]:
            name = f"{self.column} {value!r}" if value else f"without {self.column!r}"
            yield f"{name}: at most {percent(one.rate)} ({percent(one.high)}) of its pictures, {one.groups} {who}"
        if len(self.devices or {}) > _SHOWN:
            yield f"and {len(self.devices or {}) - _SHOWN} more values of {self.column!r}: all with --json"
        if not self.devices:
            yield "pictures of another camera may be called unlike, too; --device-column gives each camera a fence"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


def percent(share: float) -> str:
    """Return a share as text, with two significant digits.

    >>> percent(0.01), percent(1 / 46)
    ('1 %', '2.2 %')
    """
    return f"{100 * share:.2g} %"


def measure_novelty(
    store: Store, column: str | None = None, *, most: int | None = None, exactly: bool = False
) -> Novelty:
    """Measure how similar an archive's rows are to their nearest row of another group.

    Rows of patients that a head was fitted on measure nothing, nor, where a column tells patients apart, do rows of
    which it does not say whose they are.

    Parameters
    ----------
    column
        Names each row's camera.
    most
        So many rows are measured, each against all others: among a sample of these the nearest would lie further off.
    exactly
        Whether accelerators may not propose the nearest row.

    Raises
    ------
    UsageError
        The column is unknown.
    """
    from retr.retrieval.labels.labelled import others

    learnt = seen_by_head(store)
    seen = 0 if learnt is None else int(np.count_nonzero(learnt[store.live_rows()]))
    rows, groups = _measured(store, learnt, most or _MOST_ROWS)
    found = nearest_own(store, own_vectors(store, rows), others(store, rows), exactly=exactly)
    held = found.rows[:, 0] >= 0
    rows, groups, nearest = rows[held], groups[held], found.scores[held, 0].astype(np.float64)
    who, count = store.manifest.group, len(np.unique(groups))
    before = store.manifest.encoder.transform is not None
    values = np.array([] if column is None else _cells(store, column, rows))
    if count < LEAST_GROUPS:
        return Novelty(None, 1 / (count + 1), 1.0, count, len(rows), who, column, None, seen, before)
    whole = novelty.fence(nearest, groups)
    devices = {
        str(value): novelty.fence(nearest[values == value], groups[values == value]) for value in np.unique(values)
    }
    threshold = min(one.threshold for one in (whole, *devices.values()))
    return Novelty(threshold, whole.rate, whole.high, count, len(rows), who, column, devices or None, seen, before)


def seen_by_head(store: Store) -> NDArray[np.bool_] | None:
    """Return what that of `retr.retrieval.labels.trained_rows` does, without loading it where nothing is measured."""
    from retr.retrieval.labels import trained_rows

    return trained_rows.seen_by_head(store)


def novelty_note(store: Store, measured: Novelty) -> dict[str, Any]:
    """Return what the manifest holds of a fence that was measured on this snapshot."""
    return {**measured.to_json(), "files": _files(store), "version": _version(store, measured.column)}


def built_note(store: Store, measured: Novelty, sketch: NDArray[np.uint64]) -> dict[str, Any]:
    """Return what the manifest holds of a fence that a build measured on this snapshot, by a sketch of its rows."""
    # earlier versions read the fingerprints, and take it for stale; of files it would depend on how rows were committed
    kept = {"files": "", "version": "", "live": len(store), "setting": _digest(_setting(store))}
    return {**measured.to_json(), **kept, SKETCH: sketch.tobytes().hex()}


def noted_sketch(store: Snapshot) -> NDArray[np.uint64] | None:
    """Return the sketch of the rows that a build measured a fence on; ``None`` for another fence, or none."""
    if NOVELTY_NOTE not in store.manifest.extra:
        return None
    with stored(*_NOTED):
        data = Fields(store.manifest.extra[NOVELTY_NOTE])
        return np.frombuffer(bytes.fromhex(data.text(SKETCH)), "<u8") if data.has(SKETCH) else None


def noted_novelty(store: Snapshot) -> dict[str, Any]:
    """Return what was measured, fresh or stale: what `to_json` gave, or nothing."""
    if NOVELTY_NOTE not in store.manifest.extra:
        return {}
    with stored(*_NOTED):
        data = Fields(store.manifest.extra[NOVELTY_NOTE]).data()
        return {key: value for key, value in data.items() if key not in _VERSIONS}


def find_novelty(store: Snapshot) -> tuple[Novelty | None, str | None]:
    """Return the fence of an index and, where it no longer counts, why: one of the two is ``None``, or both."""
    found: tuple[Novelty | None, str | None] = store.once("fence", lambda: _find(store))
    return found


def _find(store: Snapshot) -> tuple[Novelty | None, str | None]:
    extra = store.manifest.extra
    if NOVELTY_NOTE not in extra:
        # earlier versions noted it with the calibration, and not what it depends on
        before = extra.get("calibration")
        return None, STALE if isinstance(before, dict) and NOVELTY_NOTE in before else None
    with stored(*_NOTED):
        data = Fields(extra[NOVELTY_NOTE])
        # measured before there was a transform it counts behind it
        found = replace(_read(data), before_transform=store.manifest.encoder.transform is not None)
        built = data.has(SKETCH)
        fresh = not built and data.text("files") == _files(store)
        if not fresh and found.column is not None and found.column not in store.schema.names:
            return None, (
                "not known whether this is unlike the archive: that was measured of each "
                f"{found.column!r}, a column that is gone; run `retr calibrate` again"
            )
        if data.has(SKETCH):
            fresh = fresh or (
                data.text("setting") == _digest(_setting(store)) and alike(data.whole("live"), len(store))
            )
            return (found, None) if fresh else (None, CHANGED)
        fresh = fresh or data.text("version") == _version(store, found.column)
    return (found, None) if fresh else (None, STALE)


def alike(then: int, now: int) -> bool:
    """Return whether so many rows, then and now, can be the same ones up to a share of `KEPT`.

    >>> alike(100, 125), alike(100, 130), alike(100, 70)
    (True, False, False)
    """
    return min(then, now) >= KEPT * max(then, now)


def unlike(
    store: Store, fence: Novelty, own: NDArray[Any], near: NDArray[np.int64], exclude: NDArray[np.int64]
) -> str | None:
    """Return why a picture is unlike the archive; ``None`` if it is not.

    Parameters
    ----------
    own
        Floats ``(d,)``: the encoder's own vector of it.
    near
        int64: rows that it is near to, which it is compared with first; all are where these are not near enough.
    exclude
        int64: the rows that it is not compared with; none of ``near`` is one.
    """
    if fence.threshold is None:
        return None
    asked = _as_compared(store, own)
    if len(near) and (own_vectors(store, near).astype(np.float64) @ asked).max() >= fence.threshold:
        return None
    found = nearest_own(store, own[None], [exclude])
    return fence.unlike(float(found.scores[0, 0])) if found.rows[0, 0] >= 0 else None


def _as_compared(store: Store, own: NDArray[Any]) -> NDArray[np.float64]:
    cosine = store.manifest.encoder.similarity == "cosine"
    return np.asarray(unit(own) if cosine else own, np.float64)


def _measured(store: Store, seen: NDArray[np.bool_] | None, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to measure and the group of each: whole groups, drawn until there are enough rows."""
    from retr.retrieval.labels.labelled import grouped
    from retr.retrieval.labels.training_marks import cell_marks

    live = store.live_rows()
    live = live if seen is None else live[~seen[live]]
    # an order of the ids alone, however the rows lie in segments: the ids themselves would be hundreds of bytes a row
    live = live[np.argsort(cell_marks(store, ID, live), kind="stable")]
    groups, known = grouped(store, store.manifest.group, live)
    if store.manifest.group is not None:
        live, groups = live[known], groups[known]
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(live))
    # the rows of a group in the order drawn, groups in an order of their own
    order = shuffled[np.argsort(rng.permutation(groups.max(initial=-1) + 1)[groups[shuffled]], kind="stable")]
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    place = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    order = order[place < _MOST_OF_A_GROUP]
    cut = groups[order[:most]]
    order = np.sort(order[: len(cut)])
    return live[order], groups[order]


def _cells(store: Store, column: str, rows: NDArray[np.int64] | None = None) -> list[str]:
    """Return a column's values as text, however their letters are coded; empty ones as ``""``."""
    found = store.table([column], rows).column(0).to_pylist()
    return ["" if value is None else unicodedata.normalize("NFC", str(value).strip()) for value in found]


def _files(store: Snapshot) -> str:
    """Fingerprint the files of the rows, and what they are to each other: equal, and nothing has changed."""
    manifest = store.manifest
    refs = [ref.sha256 if ref else None for one in manifest.segments for ref in (one.table, one.vectors, one.deleted)]
    return _digest(refs, _setting(store))


def _version(store: Snapshot, column: str | None) -> str:
    """Fingerprint what a fence depends on: the same through compaction, and changes of other columns."""
    return _digest(store.once(("novelty", column), lambda: _of_rows(store, column)), _setting(store))


def _of_rows(store: Snapshot, column: str | None) -> str:
    names = dict.fromkeys(name for name in (*_OF_ROWS, store.manifest.group, column) if name)
    table = store.table([name for name in names if name in store.schema.names]).sort_by("id").combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata(None))
    return hashlib.sha256(memoryview(sink.getvalue())).hexdigest()


def _setting(store: Snapshot) -> list[Any]:
    info = store.manifest.encoder.own
    return [repr(info.identity), info.config_sha256, store.manifest.group]


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def _read(data: Fields) -> Novelty:
    devices = data.inner("devices") if data.has("devices") else None
    return Novelty(
        threshold=data.number("threshold") if data.has("threshold") else None,
        rate=_share(data, "rate"),
        high=_share(data, "high"),
        groups=data.whole("groups"),
        rows=data.whole("rows"),
        unit=data.text("unit") if data.has("unit") else None,
        column=data.text("column") if data.has("column") else None,
        devices=None if devices is None else {name: _fence(devices.inner(name)) for name in devices},
        seen=data.whole("seen", 0),
        before_transform=data.flag("before_transform", default=False),
    )


def _fence(data: Fields) -> Fence:
    return Fence(
        threshold=data.number("threshold"),
        rate=_share(data, "rate"),
        high=_share(data, "high"),
        groups=data.whole("groups"),
        rows=data.whole("rows"),
    )


def _share(data: Fields, key: str) -> float:
    found = data.number(key)
    if not 0 <= found <= 1:
        raise ValueError(f"{key} is no share")
    return found


class Fences(Kind):
    """The fence, as a kind of side data."""

    name = "novelty"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads it."""
        return {NOVELTY_NOTE: lambda: find_novelty(snapshot)}

    def stale(self, snapshot: Snapshot) -> list[str]:
        """Return why it counts no longer."""
        why = find_novelty(snapshot)[1]
        return [] if why is None else [why]

    def revectored(self, snapshot: Snapshot) -> Change:  # noqa: ARG002
        """Keep it: its fingerprint holds whose vectors it was measured on, the encoder's own."""
        return Change()

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Drop it: it was measured on the rows, and may name the camera of one."""
        what = "the fence of unlike pictures (measure it again with `retr calibrate`)"
        # who purges measures a build's fence again (`retr.retrieval.deletion`)
        said = [what] if noted_sketch(snapshot) is None else []
        return dropped(snapshot.manifest, self.name, *said)
