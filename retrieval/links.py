"""Links from rows to the viewer or the PACS that shows their studies, by the identifiers that this machine keeps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from retr.index.errors import UsageError
from retr.index.listed import listed
from retr.index.rows.row_ids import unknown_id
from retr.retrieval.archive.kept_identifiers import FIELDS, KeptIdentifiers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.retrieval.index_like import IndexLike

_FIELD = re.compile(r"\{([^{}]*)\}")


def links(index: IndexLike, ids: Sequence[str], template: str) -> list[str | None]:
    """Return the address at which each row's study is to be seen.

    Parameters
    ----------
    ids
        Of rows.
    template
        An address with ``{study}``, ``{series}``, ``{instance}`` or ``{patient}`` where the identifiers belong; they
        are quoted as addresses need it.

    Returns
    -------
    list
        As many as ids; ``None`` for a row whose identifiers this machine does not keep (``keep_identifiers`` of a
        build), or of which one that is asked for is not stated.

    Raises
    ------
    UsageError
        The template names none of the four, or something else.
    UnknownIdError
        No row has an id.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.links(["healthy/P01-left.png"], "https://viewer.example/?StudyInstanceUIDs={study}")
    [None]
    """
    wanted = _FIELD.findall(template)
    unknown = next((name for name in wanted if name not in FIELDS), None)
    if unknown is not None or not wanted:
        raise UsageError(
            f"the link {template!r} names " + (f"{{{unknown}}}, which no row has" if wanted else "no study"),
            hint=f"it may hold {', '.join(f'{{{name}}}' for name in FIELDS)}",
        )
    ids, store = listed(ids, "ids"), index.store
    rows = store.rows_of(ids)
    absent = next((id_ for id_, row in zip(ids, rows, strict=True) if row < 0), None)
    if absent is not None:
        raise unknown_id(store, absent)
    paths: list[str] = store.table(["path"], rows)["path"].to_pylist()
    kept = KeptIdentifiers(store.uuid).of(paths)
    return [_filled(template, kept.get(path, {}), wanted) for path in paths]


def _filled(template: str, names: dict[str, str], wanted: Sequence[str]) -> str | None:
    if any(name not in names for name in wanted):
        return None
    return _FIELD.sub(lambda field: quote(names[field[1]], safe=""), template)
