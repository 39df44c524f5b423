"""Patient identity: which values of a column name the same patient, study or series.

Headers of DICOM files enter as keyed hashes (`retr.index.machine.hash_key`), tables and other sources as they are; both
may stand in one column. A raw identifier and its hash mean the same person wherever a value is given (a condition, an
exclusion, a patient's name) and wherever rows are told apart (one per patient, folds, leaks). Which columns hold hashes
and the fingerprint of their key are noted in the manifest::

    "identifiers": {"key": "6225eda7122793f9", "columns": ["patient", "series", "study"]}

An index that an older version wrote has no such note: there a column of `COLUMNS` that holds hashes is a hashed one.

Values of other types are compared as numbers: 0.0 is -0.0, NaN and blank texts are missing, and missing values are
nobody's: no two of them belong together. Floats that are too large to tell integers apart are refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.disk.manifest import IDENTIFIERS
from retr.index.disk.shards import NOTE as SHARD
from retr.index.disk.side_data import Change, Kind
from retr.index.errors import UsageError
from retr.index.json_fields import Fields, is_unicode, stored
from retr.index.machine.arrow import pc
from retr.index.machine.hash_key import agreed_key, exposure, keyed_hash
from retr.index.once import Once
from retr.index.rows.identifiers import identifier_text, identifier_texts, lossy
from retr.index.where import comparisons
from retr.index.where.parse import Logic, Operand, Predicate, fail, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.columns import Groups
    from retr.index.rows.snapshot import Snapshot
    from retr.index.where.parse import Node

# The columns that DICOM headers fill with hashes.
COLUMNS = ("patient", "series", "study")
_HASH = re.compile(r"[0-9a-f]{64}")
_WHOLE_HASH = f"^{_HASH.pattern}$"
# Of so many conditions it is kept whom they name and no row has.
_MOST_CONDITIONS = 64
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_EQUAL = {"equal": False, "not_equal": True}


class Identity:
    """Answers for one snapshot; nothing is read before it is asked.

    What is worked out is kept by the snapshot, which in turn does not hold its identity: a snapshot goes, and its
    mapped files with it, as soon as nobody uses it.

    Parameters
    ----------
    snapshot
        The snapshot.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._columns = snapshot, snapshot.columns
        self._noted = IDENTIFIERS in snapshot.manifest.extra
        self._of_a_shard = SHARD in snapshot.manifest.extra
        note = snapshot.manifest.extra.get(IDENTIFIERS)
        noted: tuple[str | None, tuple[str, ...]] = snapshot.once("identifiers", lambda: _read(note))
        self._fingerprint, self._hashed = noted

    @property
    def fingerprint(self) -> str | None:
        """The recorded fingerprint of the key."""
        return self._fingerprint

    @property
    def key(self) -> bytes:
        """The key of the hashes.

        Raises
        ------
        UsageError
            It is not here, or another one is.
        """
        key: bytes = self._snapshot.once("identifiers' key", lambda: agreed_key(self.fingerprint))
        return key

    def warnings(self) -> list[str]:
        """Say, where the key was used, that others can read it."""
        open_key = None if self._snapshot.once.get("identifiers' key") is None else exposure()
        return [] if open_key is None else [open_key]

    def hashed(self, column: str) -> bool:
        """Return whether a column holds keyed hashes, alone or among raw identifiers."""
        may = column in (self._hashed if self._noted else COLUMNS) and self._columns.has_text(column)
        # the hashes that the whole index notes may all lie in other shards than this
        return may and ((self._noted and self._of_a_shard) or self._seen(column)[0])

    @property
    def hashed_columns(self) -> list[str]:
        """The columns that hold keyed hashes."""
        return [column for column in COLUMNS if self.hashed(column)]

    def _seen(self, column: str) -> tuple[bool, pa.Array]:
        """Return whether hashes occur in a column of texts, and what else occurs."""

        def make() -> tuple[bool, pa.Array]:
            values = self._columns.distinct(column).drop_null()
            hashes = pc.match_substring_regex(values, _WHOLE_HASH)
            return bool(pc.any(hashes).as_py()), values.filter(pc.invert(hashes))

        seen: tuple[bool, pa.Array] = self._snapshot.once(("distinct", column), make)
        return seen

    def _raw(self, column: str) -> dict[str, list[str]]:
        """Return the raw identifiers of a hashed column by their hash."""

        def make() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for value in _without_blank(self._seen(column)[1]).drop_null().to_pylist():
                found.setdefault(keyed_hash(self.key, value), []).append(value)
            return found

        spelled: dict[str, list[str]] = self._snapshot.once(("spelled", column), make)
        return spelled

    def spellings(self, column: str, value: str) -> list[str]:
        """Return the texts under which a hashed column may hold what a text names: its hash first.

        Raises
        ------
        UsageError
            The key is needed and not here.
        """
        digest = value if _HASH.fullmatch(value) else keyed_hash(self.key, value)
        return [digest, *self._raw(column).get(digest, ())]

    def rows(self, column: str, values: Sequence[object]) -> list[NDArray[np.int64]]:
        """Find the live rows that each value names: sorted int64; none for a missing value.

        Raises
        ------
        UsageError
            The column is unknown, a value cannot be one of it, or a key is needed and not here.
        """
        kind = self.require(column)
        wanted = [self._stored(column, kind, value) for value in values]
        distinct = list(dict.fromkeys(one for spelled in wanted for one in spelled))
        groups, nothing = self._columns.groups(column), np.empty(0, np.int64)
        found = dict(zip(distinct, groups.rows(pa.array(distinct, kind)), strict=True))
        same = [np.unique(np.concatenate([nothing, *(found[one] for one in spelled)])) for spelled in wanted]
        alive = self._snapshot.alive()
        return [rows[alive[rows]] for rows in same]

    def texts(self, column: str, value: object) -> list[str]:
        """Return the texts under which a column may hold what a value names; raises as `rows` does."""
        return [str(one) for one in self._stored(column, self.require(column), value)]

    def _stored(self, column: str, kind: pa.DataType, value: object) -> list[Any]:
        """Return what a column holds where it holds ``value``."""
        if pa.types.is_string(kind):
            text = identifier_text(value)
            if text is not None and not is_unicode(text):
                raise UsageError(f"the value {text!r} of the column {column!r} is not Unicode", hint="give it as UTF-8")
            if text is None or not text.strip():
                return []
            if self.hashed(column):
                return self.spellings(column, text)
            # whatever the accents of a cell are composed like, one of these is its text
            return list(dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))))
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return []
        try:
            if pa.types.is_integer(kind):
                number = int(value) if isinstance(value, str) else value
                # 017 is no number of this column: another spelling is another identifier
                return [] if isinstance(value, str) and str(number) != value else [pa.scalar(number, kind).as_py()]
            plain = pa.scalar(value).cast(kind).as_py() if isinstance(value, str) else pa.scalar(value, kind).as_py()
        except OverflowError:
            return []
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError, TypeError):
            raise UsageError(
                f"{value!r} is no value of the column {column!r}, which is {kind}",
                hint=f"see its values with `retr index ls --columns {column}`",
            ) from None
        return [] if isinstance(plain, float) and math.isnan(plain) else [plain]

    def of(self, column: str, rows: NDArray[np.int64]) -> list[str | None]:
        """Return a text for each of some rows, equal where a column says that they belong together; None for nobody.

        Raises
        ------
        UsageError
            The column is unknown or cannot tell rows apart, or hashes need a key that is not here.
        """
        values = self._canonical(column)(self._snapshot.table([column], rows).column(0).combine_chunks())
        texts: list[str | None] = identifier_texts(pa.chunked_array([values]), column).to_pylist()
        return texts

    def groups(self, column: str) -> Groups:
        """Return which rows share a value of a column; raises as `of` does."""

        def make() -> Groups:
            return self._columns.groups(column, self._canonical(column))

        groups: Groups = self._snapshot.once(("groups", column), make)
        return groups

    def _canonical(self, column: str) -> Callable[[pa.Array], pa.Array]:
        """Return the function that brings a column's values to one spelling each, null where there is nobody."""
        if pa.types.is_string(self.require(column)):
            return self._one_hash if self.hashed(column) else _without_blank
        return comparisons.canonical

    def _one_hash(self, values: pa.Array) -> pa.Array:
        values = _without_blank(values)
        raw = pc.and_(pc.is_valid(values), pc.invert(pc.match_substring_regex(values, _WHOLE_HASH)))
        if not pc.any(raw).as_py():
            return values
        words = {value: keyed_hash(self.key, value) for value in values.filter(raw).unique().to_pylist()}
        return pa.array([words.get(value, value) for value in values.to_pylist()], pa.string())

    def require(self, column: str) -> pa.DataType:
        """Return the type of a column that can tell rows apart.

        Raises
        ------
        UsageError
            It is unknown, or holds lists, bytes, or numbers too large to be told apart.
        """
        kind = self._columns.require(column)
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise UsageError(
                f"the column {column!r} is {kind} and cannot tell rows apart", hint="name a column of texts or numbers"
            )
        if pa.types.is_floating(kind) and lossy(pa.chunked_array([self._columns.distinct(column)])):
            raise UsageError(
                f"the column {column!r} holds numbers beyond 2^53, among which different identifiers may be one",
                hint=f"build again with the table it came from, --metadata FILE --type {column}=text",
            )
        return kind

    # conditions

    def meaning(self, tree: Node, expression: str) -> Node:
        """Return a condition in which every identifier compared with a hashed column stands for all its spellings.

        Raises
        ------
        FilterError
            A hashed column is compared in a way that hashes cannot answer.
        UsageError
            The key is needed and not here.
        """
        if isinstance(tree, Logic):
            return Logic(tree.kind, tuple(self.meaning(part, expression) for part in tree.parts))
        operands = (tree.left, *tree.right)
        self._need_texts(operands, expression)
        hashed = [one for one in operands if one.name is not None and self.hashed(one.name)]
        unknown = hashed and any(one.name is not None and not self._columns.has(one.name) for one in operands)
        if not hashed or tree.kind == "null" or unknown:  # an unknown name is refused where names are looked up
            return tree
        column = hashed[0]
        values = [one for one in operands if one is not column]
        if tree.kind in {"equal", "not_equal", "in"} and all(one.name is None for one in values):
            if all(one.value is None or isinstance(one.value, str) for one in values):
                return self._any_spelling(tree, column, values)
            return tree  # a truth value: refused where types are checked
        if len(hashed) == len(operands):
            return tree
        message = f"the column {column.name!r} holds keyed hashes, which can only be equal or not"
        hint = f"write {column.name} = 'MRN1003', or {column.name} in ('MRN1003', 'MRN1004'): the key is applied"
        return fail(expression, message, column.at, hint)

    def _need_texts(self, operands: Sequence[Operand], expression: str) -> None:
        """Refuse to compare the column that tells patients apart, which stays text, with a number."""
        group = self._snapshot.manifest.group
        column = next((one.name for one in operands if one.name is not None and one.name == group), None)
        number = next((one for one in operands if isinstance(one.value, comparisons.Number)), None)
        if column is not None and number is not None and self._columns.has_text(column):
            message = (
                f"cannot compare: the column {column!r} holds identifiers, which are text, {number.text} is a number"
            )
            fail(expression, message, number.at, f"write it in single quotes: '{number.text}'")

    def _any_spelling(self, tree: Predicate, column: Operand, values: Sequence[Operand]) -> Predicate:
        spelled = [
            Operand(one.at, value=text, text=one.text)
            for one in values
            for text in (self.spellings(str(column.name), one.value) if isinstance(one.value, str) else [None])
        ]
        negated = tree.negated != _EQUAL.get(tree.kind, False)
        return Predicate(tree.at, "in", column, tuple(spelled), negated)

    def absent(self, *conditions: str | None) -> list[str]:
        """Return which identifiers conditions name that no row has, a phrase each; None is no condition."""
        named = [one for where in conditions if where is not None for one in self.nobody(where)]
        return [f"no row has the {column} {value!r} that the condition names" for column, value in dict.fromkeys(named)]

    def nobody(self, expression: str) -> list[tuple[str, str]]:
        """Return the identifiers that a condition names and no row has, each with its column.

        Looked at are the columns that tell patients apart: hashed ones and the group.
        """
        asked: Once = self._snapshot.once("absent", lambda: Once(most=_MOST_CONDITIONS))
        named: list[tuple[str, str]] = asked(expression, lambda: self._find_absent(expression))
        return named

    def _find_absent(self, expression: str) -> list[tuple[str, str]]:
        group = self._snapshot.manifest.group
        asked = [
            (column.name, one.value)
            for test in _predicates(parse(expression))
            if test.kind in {"equal", "not_equal", "in"}
            for column in (test.left, *test.right)
            if column.name is not None and self._columns.has_text(column.name)
            if column.name == group or self.hashed(column.name)
            for one in (test.left, *test.right)
            if isinstance(one.value, str)
        ]
        return [(name, value) for name, value in dict.fromkeys(asked) if not len(self.rows(name, [value])[0])]


def only_hashes(texts: Any) -> Any:
    """Return a column of texts in which everything but keyed hashes is null."""
    return pc.if_else(pc.match_substring_regex(texts, _WHOLE_HASH), texts, pa.scalar(None, pa.string()))


def _read(note: Any) -> tuple[str | None, tuple[str, ...]]:
    """Return the fingerprint and the columns of a note."""
    if note is None:
        return None, ()
    with stored("the note of hashed identifiers"):
        fields = Fields(note)
        key, columns = fields.text("key"), fields.texts("columns")
        if _FINGERPRINT.fullmatch(key) is None or not set(columns) <= set(COLUMNS):
            raise ValueError("no fingerprint, or other columns")
        return key, columns


def _predicates(tree: Node) -> Iterator[Predicate]:
    if isinstance(tree, Predicate):
        yield tree
    else:
        for part in tree.parts:
            yield from _predicates(part)


def _without_blank(values: pa.Array) -> pa.Array:
    values = comparisons.composed(values)
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), pa.scalar(None, pa.string()), values)


class Identifiers(Kind):
    """The note of hashed identifiers: without the fingerprint in it, another key would pass for this one."""

    name = "identifiers"
    of_vectors = False

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads it."""
        return {IDENTIFIERS: lambda: _read(snapshot.manifest.extra[IDENTIFIERS])}

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: it holds for every row."""
        return ()

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Keep it: it speaks of no row."""
        return Change()
