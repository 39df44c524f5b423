"""Taking what the journal holds (`retr.index.disk.journal`) into the state that a commit makes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from retr.index.disk import journal
from retr.index.disk.files import disk_errors
from retr.index.disk.segments import map_file
from retr.index.disk.side_data import known_kind
from retr.index.errors import RetrError

if TYPE_CHECKING:
    from retr.index.rows.draft import Draft

_LOGGER = logging.getLogger("retr")


def fold(draft: Draft[Any], *, strict: bool = False) -> int:
    """Append the journal's entries to the side file of a draft; return the number of the last one that is in it.

    Rows are committed whatever the journal is: what keeps it from being read is logged, or raised where ``strict``.
    """
    done = journal.folded(draft.draft)
    try:
        with disk_errors("reading the journal"):
            entries = journal.tail(draft.store.path, done)
    except RetrError as error:
        if strict:
            raise
        _LOGGER.warning("what was saved beside the index is not taken in: %s", error.message)
        return done
    if not entries:
        return done
    kind = known_kind(journal.KIND, "what was saved cannot be taken in")
    ref = draft.draft.files.get(journal.SIDE_FILE)
    before = b"" if ref is None else map_file(draft.store.path, ref).to_pybytes()
    draft.add_file(journal.SIDE_FILE, before + b"".join(entry.to_line() for entry in entries), kind=kind)
    draft.note(journal.NOTE, journal.note_of(entries[-1].number), kind=kind)
    return entries[-1].number
