"""The vectors a protocol evaluates: from a resumable build of its own, or from an index.

A protocol asks for the vectors of its pictures by one encoder or by several. `Work` embeds them as `retr index build`
does, into an index of its own: the pipeline decodes in threads, records what cannot be read and commits as it goes, so
that a killed run loses its last commit at most and the next one embeds nothing twice. The vectors lie in it as the
encoders gave them, since published protocols use their length; those of several encoders lie side by side, from one
decode of each picture. `Built` takes the vectors of indexes that are there; where the score is cosine, those are unit
vectors.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from retr.index.errors import NoTextSideError, UsageError
from retr.index.machine.home import cache_folder
from retr.index.machine.state import state_folder
from retr.index.machine.waiting import LOGGER
from retr.index.store import Store
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.evaluation.protocols.together import SIDE_BY_SIDE, SideBySide
from retr.retrieval.ingest.build import build_each
from retr.retrieval.ingest.options import COMMIT_ROWS
from retr.retrieval.ingest.rows import score_column
from retr.retrieval.labels.trained_rows import HEAD_FILE
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.progress import Progress


@dataclass(frozen=True)
class Embedded:
    """Pictures that have vectors.

    Attributes
    ----------
    data
        Those pictures; what had none is among its ``left_out``.
    vectors
        For each encoder float32 ``(n, dim)``, row for row.
    scores
        float64 ``(n, f)``: the probability of each finding that was asked for.
    unit
        For each encoder whether its vectors were made unit vectors; else they are as it gave them.
    """

    data: ClassFolder
    vectors: tuple[NDArray[np.float32], ...]
    scores: NDArray[np.float64]
    unit: tuple[bool, ...]

    def how(self, number: int = 0) -> str:
        """Return in words what the vectors of an encoder are."""
        return "unit vectors of an index" if self.unit[number] else "as the encoder gives them"


class Embedder(Protocol):
    """Where a protocol's vectors come from.

    Attributes
    ----------
    built
        Whether from indexes, which hold each encoder's own vectors and where the score is cosine unit vectors.
    """

    built: ClassVar[bool]

    def embed(self, data: ClassFolder, encoders: Sequence[BaseEncoder], findings: Sequence[str] = ()) -> Embedded:
        """Embed every picture by every encoder, and let the first score findings.

        Raises
        ------
        UsageError
            Fewer than two classes of pictures that can be read are left.
        """


@dataclass(frozen=True)
class Work:
    """Embeds pictures into an index that is kept.

    Attributes
    ----------
    folder
        That index; the same folder again goes on with it.
    kept
        Where no folder is given: keep the index in the user's cache, for the same pictures and encoders to go on with;
        else it is a temporary one.
    progress
        Show progress on standard error, or an object that shows it.
    commit_rows
        Rows between two commits; a slow encoder commits by the clock before that.
    """

    built: ClassVar[bool] = False
    folder: Path | None = None
    kept: bool = False
    progress: bool | Progress = False
    commit_rows: int = COMMIT_ROWS

    def embed(self, data: ClassFolder, encoders: Sequence[BaseEncoder], findings: Sequence[str] = ()) -> Embedded:
        """Embed what is not embedded yet; see `Embedder`."""
        return self.embed_groups(data, [encoders], findings)[0]

    def embed_groups(
        self, data: ClassFolder, groups: Sequence[Sequence[BaseEncoder]], findings: Sequence[str] = ()
    ) -> list[Embedded]:
        """Embed what is not embedded yet in one reading of the pictures, by groups of encoders that read them alike.

        Each group keeps its own index, and may find other pictures that have no vector.
        """
        together = [SideBySide(list({id(one): one for one in group}.values())) for group in groups]
        if findings and not hasattr(together[0].encoders[0], "encode_and_score"):
            raise NoTextSideError(f"encoder {together[0].info.name!r} scores no findings", hint="use kad")
        with ExitStack() as stack:
            folders = []
            for number, one in enumerate(together):
                folder = _kept(data, one, findings) if self.kept and self.folder is None else self.folder
                if folder is not None and self.folder is not None and len(groups) > 1:
                    folder = folder / str(number)
                if folder is not None:
                    LOGGER.info(
                        "vectors are kept in %s: the same command goes on with them; delete it when done", folder
                    )
                folders.append(folder or Path(stack.enter_context(TemporaryDirectory(prefix="retr-bench-"))) / "index")
                if folder is None:
                    stack.callback(_forget, folders[-1])
            stores = self._built(dict(zip(folders, together, strict=True)), data, findings)
            return [
                _taken(data, group, [_Part(store, one.place(encoder)) for encoder in group], findings)
                for group, one, store in zip(groups, together, stores, strict=True)
            ]

    def _built(self, encoders: Mapping[Path, SideBySide], data: ClassFolder, findings: Sequence[str]) -> list[Store]:
        for folder, encoder in encoders.items():
            if Store.exists(folder) and not Store.open(folder).manifest.encoder.agrees_with(encoder.info):
                raise UsageError(
                    f"the index {str(folder)!r} holds other vectors than this run needs: of another encoder, another "
                    "feature or another command",
                    hint="keep them elsewhere with --work; --index takes those of an index that `retr index build` "
                    "made",
                )
        build_each(
            data.source(),
            encoders,
            progress=self.progress,
            scores=list(findings),
            frames=0,
            transform="none",
            commit_rows=self.commit_rows,
        )
        return [Store.open(folder) for folder in encoders]


def _forget(folder: Path) -> None:
    """Remove what the machine's state remembers of a temporary index."""
    if Store.exists(folder):
        for file in state_folder().glob(f"*/{Store.open(folder).uuid}*"):
            file.unlink(missing_ok=True)


#: A temporary index, and no progress.
WORK = Work()


def _kept(data: ClassFolder, encoder: SideBySide, findings: Sequence[str]) -> Path | None:
    """Return where this machine keeps the vectors of a folder, in the user's cache; None where it cannot be written.

    Those of another encoder, or in another precision, lie elsewhere.
    """
    info = encoder.info
    key = json.dumps([data.place(), info.identity, info.config_sha256, info.precision, list(findings)])
    name = "".join(character if character.isalnum() else "-" for character in info.name)
    folder = cache_folder() / "benches" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        LOGGER.warning("the cache cannot be written: an interrupted run begins anew (or name a folder with --work)")
        return None
    return folder


@dataclass(frozen=True)
class Built:
    """Takes vectors from indexes: for each encoder from the one that it built.

    Attributes
    ----------
    stores
        The indexes.

    Raises
    ------
    UsageError
        One is the work of a bench, whose vectors may be of several encoders.
    """

    built: ClassVar[bool] = True
    stores: tuple[Store, ...]

    def __post_init__(self) -> None:
        for store in self.stores:
            if SIDE_BY_SIDE in store.manifest.encoder.options:
                raise UsageError(
                    f"the index {str(store.path)!r} is what a bench keeps for itself",
                    hint="give it with --work, beside the --data it was made of",
                )

    def embed(self, data: ClassFolder, encoders: Sequence[BaseEncoder], findings: Sequence[str] = ()) -> Embedded:
        """Take the vectors of the pictures; one that an index does not have is left out. See `Embedder`."""
        parts = [_Part(self._built_by(encoder.info), None) for encoder in encoders]
        kept = BuildNotes.of(parts[0].store).scores
        # a finding's probability depends on which others were asked with it
        if findings and kept != tuple(findings):
            raise UsageError(
                f"the index was built with the findings {', '.join(kept) or 'none'}, the protocol asks for "
                f"{', '.join(findings)}",
                hint="build it with --score for each of these in this order, or run without --index",
            )
        for store in {id(part.store): part.store for part in parts}.values():
            data = data.without(_changed(data, store))
        return _taken(data, encoders, parts, findings)

    def _built_by(self, info: EncoderInfo) -> Store:
        if any(HEAD_FILE in store.manifest.files for store in self.stores):
            raise UsageError(
                "the vectors of an adapted index have seen its labels: nothing can be measured on them",
                hint="give the index it was made from",
            )
        for store in self.stores:
            if store.manifest.encoder.own.agrees_with(info):
                return store
        raise UsageError(f"no index that was given was built by {info.name!r} as it is asked for")


@dataclass(frozen=True)
class _Part:
    """Where the vectors of one encoder are: an index, and the dimensions in it; None: all."""

    store: Store
    place: slice | None


def _taken(
    data: ClassFolder, encoders: Sequence[BaseEncoder], parts: Sequence[_Part], findings: Sequence[str]
) -> Embedded:
    """Take vectors and scores from indexes."""
    rows_in: dict[int, dict[str, int]] = {}
    for part in parts:
        if id(part.store) not in rows_in:
            rows_in[id(part.store)] = _rows(part.store)
    reasons: dict[str, str] = {}
    for part in parts:
        rows = rows_in[id(part.store)]
        skipped = part.store.skipped()
        why = dict(zip(skipped["path"].to_pylist(), skipped["reason"].to_pylist(), strict=True))
        absent = "missing" if part.place is not None else "not in the index"
        reasons |= {path: why.get(path, absent) for path in data.paths if path in why or path not in rows}
    data = data.without(reasons)
    vectors, unit = [], []
    for encoder, part in zip(encoders, parts, strict=True):
        rows = rows_in[id(part.store)]
        # as the encoder's authors have them, whatever transform the index is searched with
        found = own_vectors(part.store, np.array([rows[path] for path in data.paths], np.int64))
        vectors.append(np.ascontiguousarray(found[:, part.place or slice(None)], np.float32))
        unit.append(part.place is None and encoder.info.similarity == "cosine")
    scores = np.empty((len(data.paths), 0))
    if findings:
        rows = rows_in[id(parts[0].store)]
        columns = [score_column(one) for one in findings]
        if len({*columns}) < len(columns):
            raise UsageError("two findings have the same column in an index", hint="name them otherwise")
        table = parts[0].store.table(columns, np.array([rows[path] for path in data.paths], np.int64))
        scores = np.stack([table[column].to_numpy() for column in columns], axis=1).astype(np.float64)
        keep = np.asarray(np.isfinite(scores).all(axis=1), dtype=bool)
        unscored = [path for path, finite in zip(data.paths, keep.tolist(), strict=True) if not finite]
        data = data.without(dict.fromkeys(unscored, "no finite score"))
        vectors, scores = [one[keep] for one in vectors], scores[keep]
    return Embedded(data, tuple(vectors), scores, tuple(unit))


def _changed(data: ClassFolder, store: Store) -> dict[str, str]:
    """Return the pictures of a folder whose files have another size than those an index was built from."""
    if data.root == store.path or not {"path", "size"} <= {*store.schema.names}:
        return {}
    table = store.table(["path", "size"])
    sizes = dict(zip(table["path"].to_pylist(), table["size"].to_pylist(), strict=True))
    changed = {}
    for path in data.paths:
        with suppress(OSError):  # the member of a container; or gone, and its vector is there
            if sizes.get(path) not in {None, (data.root / path).stat().st_size}:
                changed[path] = "changed since the index was built"
    return changed


def _rows(store: Store) -> dict[str, int]:
    """Return the row of each picture, by its id, and by its path where a file has several: the first of them."""
    table = store.table(["id", "path"] if "path" in store.schema.names else ["id"])
    rows = store.live_rows().tolist()
    found: dict[str, int] = {}
    for column in reversed(table.column_names):
        for path, row in zip(table[column].to_pylist(), rows, strict=True):
            if path is not None:
                found.setdefault(path, row)
    return found
