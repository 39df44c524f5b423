"""A linear bridge from words to the image space, fitted on the archive's texts, for encoders without a text side.

The archive's own texts (labels, findings, captions, reports) are embedded by a text encoder; a ridge regression maps
them to the vectors of their images, less the mean image. The prediction is then whitened, softly, by the spread of
the images around what their texts predict: where images of one text differ much, a difference says less. Both
strengths are chosen by cross-validation over groups. What is stated about the bridge (R@1, R@10) is measured on groups
that neither the bridge nor the text encoder has seen; after that it is fitted once more, on everything.

On disk it is ``bridge.npz`` in the index: arrays and JSON, no pickle.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.npz import numbers, read_npz
from retr.index.disk.side_data import Change, Kind, dropped
from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.json_fields import Fields, parse_json, stored
from retr.index.machine.waiting import waiting
from retr.index.vectors import unit
from retr.retrieval.encoders.runtime.truncation import lengths
from retr.retrieval.labels.folds import deal
from retr.retrieval.labels.held_out_views import Unseen
from retr.retrieval.labels.labelled import data_version, row_groups
from retr.retrieval.labels.trained_rows import BRIDGE_FILE, seen_by_bridge
from retr.retrieval.labels.training_marks import Marks
from retr.retrieval.text.bag_of_words import WordBag
from retr.retrieval.text.regression import Texts, fit_all, fit_chosen, text_features, text_recall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query_vectors import TextEncoder

FILE = BRIDGE_FILE
BRIDGE_NOTE = "bridge"
SEPARATOR = "||"
# What a prediction is whitened by: a bridge of another way cannot be fitted again without some rows.
SPREAD = "around the texts"
# Held out to state how well the bridge works: one part in so many.
PARTS = 5
MAX_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class Bridge:
    """A fitted bridge; it takes an encoder's place wherever words are embedded.

    Attributes
    ----------
    text
        What embeds the words; a `WordBag`, or an encoder of the registry.
    bag
        The words of the archive's texts, to tell unknown ones.
    mean
        float32 ``(k,)``, the mean text.
    matrix
        float32 ``(k, dim)``, from text to image space.
    figures
        column, texts, rows, groups, ridge, level, spread, recall_at_1, recall_at_10, pool (rows searched).
    data_version
        Version of the texts it was fitted on.
    encoder
        Identity of the registry's text encoder, as JSON; ``None`` with a `WordBag`.
    seen
        Whose texts it was fitted on; ``None`` in an index of an older version.
    """

    text: TextEncoder
    bag: WordBag
    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]
    figures: dict[str, Any]
    data_version: str
    encoder: dict[str, Any] | None = None
    seen: Marks | None = None

    @property
    def fitted_on(self) -> str:
        """The column of texts it was fitted on."""
        return str(self.figures["column"])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in the image space: float32 ``(n, dim)``.

        Raises
        ------
        UsageError
            If nothing of a text was in the archive's texts.
        """
        found = text_features(self.text, texts)
        for text, vector in zip(texts, found, strict=True):
            if not vector.any():
                raise UsageError(
                    f"none of the words of {text!r} occurs in the archive's {self.figures['column']!r}",
                    hint="use words of the archive's own texts",
                )
        bridged: NDArray[np.float32] = np.asarray((found - self.mean) @ self.matrix, dtype=np.float32)
        return bridged

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts as the text encoder does; empty with a bag of words, which has no end."""
        return lengths(self.text, texts)

    def class_embedding(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed a class: the mean of its prompts' unit vectors, made a unit vector: float32 ``(dim,)``.

        Prompts of which nothing is known are left out; `UsageError` where that is all of them.
        """
        known = [prompt for prompt in prompts if text_features(self.text, [prompt]).any()]
        vectors = unit(self.encode_texts(known or prompts))
        vector: NDArray[np.float32] = unit(vectors.mean(axis=0, keepdims=True))[0]
        return vector

    def similarity_logits(
        self, image_vectors: NDArray[np.float32], text_vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return cosines ``(n, m)``; a bridge has no scale of its own before `retr calibrate`."""
        logits: NDArray[np.float32] = unit(image_vectors) @ unit(text_vectors).T
        return logits

    def confidence(self, text: str) -> float:
        """Return the held-out R@10 times the share of the text's words that the archive's texts know."""
        return round(float(self.figures["recall_at_10"]) * self.bag.known(text)[0], 4)

    def note(self, texts: Sequence[str]) -> str:
        """Return a notice: words go through a bridge, how well it does, and which words it does not know."""
        figures = self.figures
        reached = f"R@1 {figures['recall_at_1']:.2f}, R@10 {figures['recall_at_10']:.2f} of {figures['pool']}"
        parts = [f"words go through a bridge fitted on {figures['column']!r} (held-out {reached})"]
        unknown = list(dict.fromkeys(word for text in texts for word in self.bag.known(text)[1]))
        if unknown:
            parts.append(f"unknown to it: {', '.join(map(repr, unknown))}")
        if texts:
            parts.append(f"confidence {min(map(self.confidence, texts)):.2f}")
        return "; ".join(parts)

    def without(self, store: Store, gone: NDArray[np.int64], fold: int | None) -> Bridge:
        """Fit it again, without some rows, to be measured on them.

        Parameters
        ----------
        gone
            int64: rows of the store, whole patients.
        fold
            Fit it in this view of an adapted index (`retr.retrieval.labels.held_out_views`); ``None``: in the index
            itself.

        Raises
        ------
        UsageError
            Rows, texts or groups have changed since it was fitted, or an older version fitted it.
        """
        older = self.seen is None or self.figures.get("spread") != SPREAD
        if older or self.data_version != data_version(store, self.fitted_on):
            what = "by an older version, in another way" if older else "on other rows or texts"
            raise UsageError(
                f"the bridge from {self.fitted_on!r} was fitted {what}, and cannot be measured",
                hint=f"fit it again with `retr align --text-column {self.fitted_on}`",
            )
        with stored("the stored bridge", "run `retr align` again"):
            noted = Fields(self.figures)
            where = noted.text("where") if noted.has("where") else None
            separator = noted.text("separator", SEPARATOR)
            # with its own strengths: others would give other similarities than those that are to be calibrated
            strengths = noted.number("ridge"), noted.number("level") if noted.has("level") else None
        texts = collect_texts(store, self.fitted_on, where=where, separator=separator)
        unseen, keep = Unseen(store, texts.rows), ~np.isin(texts.rows, gone)
        if fold is not None:
            keep &= unseen.in_view
        vectors = np.asarray(store.vectors(texts.rows[keep]), np.float32) if fold is None else unseen.view(fold, keep)
        own = None if self.encoder is None else self.text
        side, mean, matrix, _ = fit_chosen(texts.part(keep), vectors, own, strengths)
        bag = side if isinstance(side, WordBag) else self.bag
        return replace(self, text=side, bag=bag, mean=mean.astype(np.float32), matrix=matrix.astype(np.float32))

    def to_bytes(self) -> bytes:
        """Write an ``.npz`` without pickles."""
        header = {"figures": self.figures, "data_version": self.data_version, "encoder": self.encoder}
        arrays: dict[str, NDArray[Any]] = {f"bag_{name}": array for name, array in self.bag.to_arrays().items()}
        arrays |= {"mean": self.mean, "matrix": self.matrix, **({} if self.seen is None else self.seen.to_arrays())}
        sink = io.BytesIO()
        np.savez(sink, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; a registry encoder is loaded by the name recorded."""
        with stored("the stored bridge", "run `retr align` again"):
            arrays = read_npz(data)
            header = Fields(parse_json(arrays.pop("header").tobytes()))
            bag = WordBag.from_arrays({name[4:]: array for name, array in arrays.items() if name.startswith("bag_")})
            mean = numbers(arrays, "mean", None)
            matrix = numbers(arrays, "matrix", len(mean), None)
            figures = header.inner("figures")
            figures.text("column"), figures.number("recall_at_1"), figures.number("recall_at_10"), figures.whole("pool")
            version = header.text("data_version")
            encoder = header.inner("encoder").data() if header.has("encoder") else None
            known, seen = None if encoder is None else EncoderInfo.from_json(encoder), Marks.from_arrays(arrays)
            if (bag.dim if known is None else known.dim) != len(mean):
                raise ValueError("a matrix for other features")
        text: TextEncoder = bag if known is None else _load(known)
        return cls(text, bag, mean, matrix, figures.data(), version, encoder, seen)


def fit_bridge(
    store: Store,
    column: str,
    *,
    where: str | None = None,
    separator: str = SEPARATOR,
    text_encoder: BaseEncoder | None = None,
) -> Bridge:
    """Fit a bridge on the texts of a column.

    Parameters
    ----------
    column
        A column of strings (or of lists of strings).
    where
        Only rows for which this expression is true.
    separator
        What stands between several texts of one row.
    text_encoder
        A loaded encoder with a text side; by default a `WordBag` of the texts themselves.

    Raises
    ------
    UsageError
        If the column is unknown, or holds fewer than ten rows with text, or a single group; or a head has seen every
        group, so that nothing can be measured.
    """
    texts = collect_texts(store, column, where=where, separator=separator)
    vectors = np.asarray(store.vectors(texts.rows), dtype=np.float32)
    train, test, lying = _apart(store, texts, vectors)
    side, mean, matrix, (ridge, level) = fit_chosen(texts.part(train), lying(train), text_encoder)
    left = texts.part(test)
    at_1, at_10 = text_recall((text_features(side, left.texts) - mean) @ matrix, left, lying(test), (1, 10))

    bag = WordBag.fit(texts.texts)
    side = text_encoder or bag
    # texts of which the encoder read the beginning only
    cut = sum(tokens > read for tokens, read in lengths(side, texts.texts))
    mean, matrix = fit_all(texts, vectors, text_features(side, texts.texts), [ridge], [level])[ridge, level]
    return Bridge(
        text=side,
        bag=bag,
        mean=mean.astype(np.float32),
        matrix=matrix.astype(np.float32),
        figures={
            "column": column,
            "text_encoder": "words and letter groups" if text_encoder is None else text_encoder.info.name,
            "rows": len(texts.rows),
            "texts": len(texts.texts),
            "groups": len(np.unique(texts.groups)),
            "ridge": ridge,
            "level": level,
            "spread": SPREAD,
            "recall_at_1": round(at_1, 4),
            "recall_at_10": round(at_10, 4),
            "pool": len(left.rows),
            **({"texts_cut": cut} if cut else {}),
            **({} if where is None else {"where": where}),
            **({} if separator == SEPARATOR else {"separator": separator}),
        },
        data_version=data_version(store, column),
        encoder=None if text_encoder is None else text_encoder.info.to_json(),
        seen=Marks.of(store, texts.rows, [store.manifest.group]),
    )


def _apart(
    store: Store, texts: Texts, vectors: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Callable[[NDArray[np.bool_]], NDArray[np.float32]]]:
    """Divide rows into those to fit on and those to measure on, that no head has seen; and say where they lie."""
    unseen = Unseen(store, texts.rows)
    if unseen.views is None and unseen.plain.any():
        test = np.zeros(len(texts.rows), bool)
        test[unseen.plain] = deal(texts.groups[unseen.plain], PARTS) == 0
        return ~test, test, lambda keep: vectors[keep]
    test = unseen.in_view & unseen.asked & (unseen.folds(texts.groups) == 0)
    if unseen.views is None or not test.any():
        raise UsageError(
            "the head of this index was fitted on all that has text: nothing is left to measure a bridge on",
            hint="fit the bridge on the index it was made from, or adapt that one without refitting",
        )
    train = unseen.in_view & ~np.isin(texts.groups, texts.groups[test])
    return train, test, lambda keep: unseen.view(0, keep)


def align(
    index: IndexLike,
    text_column: str,
    *,
    where: str | None = None,
    separator: str = SEPARATOR,
    text_encoder: BaseEncoder | None = None,
) -> Bridge:
    """Fit a bridge and commit it to the index; arguments and errors as `fit_bridge`.

    Raises
    ------
    UsageError
        The index's encoder has a text side of its own.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> _ = index.align("caption")
    >>> index.search(text="healthy eye", k=1)[0].metadata["label"]
    'healthy'
    """
    index.refresh()
    store = index.store
    encoder = store.manifest.encoder
    if encoder.text:
        raise UsageError(f"the encoder {encoder.name!r} has a text side of its own", hint="use --text without a bridge")
    with waiting(f"fitting a bridge on the texts of {text_column!r}"):
        bridge = fit_bridge(store, text_column, where=where, separator=separator, text_encoder=text_encoder)
    with store.writer() as writer:
        writer.add_file(FILE, bridge.to_bytes())
        writer.note(BRIDGE_NOTE, bridge.figures)
        writer.commit()
    index.refresh()
    return bridge


def find_bridge(store: Snapshot) -> Bridge | None:
    """Read the index's bridge; ``None`` where there is none, `IndexCorruptError` where it is not of its vectors."""
    if FILE not in store.manifest.files:
        return None
    bridge = Bridge.from_bytes(store.file(FILE))
    if bridge.matrix.shape[1] != store.manifest.encoder.dim:
        raise IndexCorruptError("the stored bridge leads to vectors of another length", hint="run `retr align` again")
    return bridge


def collect_texts(store: Store, column: str, *, where: str | None = None, separator: str = SEPARATOR) -> Texts:
    """Collect the texts of a column; see `fit_bridge`."""
    live = store.in_id_order(None if where is None else np.flatnonzero(store.where(where)))
    values = store.table([column], rows=live).column(column).to_pylist()
    split = [_split(value, separator) for value in values]
    keep = np.array([bool(parts) for parts in split], dtype=bool)
    rows = live[keep]
    if len(rows) < 10:
        raise UsageError(
            f"the column {column!r} holds text in {len(rows)} rows, a bridge needs at least 10",
            hint="give a column of labels, findings or captions",
        )
    groups = row_groups(store, rows)
    kept = [parts for parts in split if parts]
    owner = np.repeat(np.arange(len(rows)), [len(parts) for parts in kept])
    texts = Texts(rows, groups, tuple(text for parts in kept for text in parts), owner)
    return texts if len(rows) <= MAX_ROWS else texts.part(deal(groups, -(-len(rows) // MAX_ROWS)) == 0)


def _split(value: object, separator: str) -> list[str]:
    parts = value if isinstance(value, list) else str(value).split(separator) if value is not None else []
    return [text for part in parts if part is not None and (text := str(part).strip())]


def _load(info: EncoderInfo) -> TextEncoder:
    """Load the text encoder a bridge was fitted with, from where this machine has it; refuse another in its place."""
    from retr.retrieval.encoders.index_encoder import load_recorded

    return load_recorded(None, info, {})


class Bridges(Kind):
    """The bridge, as a kind of side data."""

    name = "bridge"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads it, and whether it leads to vectors such as these."""
        return {FILE: lambda: (find_bridge(snapshot), seen_by_bridge(snapshot))}

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: words lead where they did, whatever rows have come since."""
        return ()

    def rows(self, snapshot: Snapshot) -> NDArray[np.bool_] | None:
        """Return the rows of the patients whose texts it was fitted on."""
        return seen_by_bridge(snapshot)

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Drop it: it is fitted on the rows, and holds the words of their texts."""
        if FILE not in snapshot.manifest.files:
            return dropped(snapshot.manifest, self.name)
        column = snapshot.manifest.extra.get(BRIDGE_NOTE, {}).get("column")
        what = f"the bridge from words (fit it again with `retr align --text-column {column}`)"
        return dropped(snapshot.manifest, self.name, what)
