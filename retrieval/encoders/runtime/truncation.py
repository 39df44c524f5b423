"""Report texts that are longer than an encoder reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 40


def lengths(side: object, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Count the tokens of texts and how many are read (`BaseEncoder.text_lengths`); empty where nothing is known."""
    count = getattr(side, "text_lengths", None)
    return list(count(list(texts))) if count is not None and texts else []


def unread_ends(side: object, texts: Sequence[str]) -> list[str]:
    """Return of which texts only the beginning is read: a line for the only one, else for all of them together.

    Parameters
    ----------
    side
        What embeds the texts.
    """
    # by text: one that is asked twice counts once
    counted = zip(texts, lengths(side, texts), strict=False)
    beyond = {text: (tokens, read) for text, (tokens, read) in counted if tokens > read}
    if not beyond:
        return []
    longest, (tokens, read) = max(beyond.items(), key=lambda item: item[1][0])
    shown = longest if len(longest) <= _SHOWN else f"{longest[:_SHOWN].rstrip()}..."
    which = f"of {tokens} tokens of the text {shown!r} only the first {read} were read"
    others = f"; {len(beyond)} texts are longer than the encoder reads, this one most" if len(beyond) > 1 else ""
    return [which + others]
