"""Answers as JSON and as Arrow: one form for the command line, the server, its client and whatever reads them."""

from retr.retrieval.hits_arrow import MEDIA_TYPE, from_arrow, to_arrow
from retr.retrieval.json_values import to_plain

__all__ = ["MEDIA_TYPE", "from_arrow", "to_arrow", "to_plain"]
