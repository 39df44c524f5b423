"""Answers as JSON: one form for the command line, the server, its client and whatever reads them."""

from retr.retrieval.json_values import to_plain

__all__ = ["to_plain"]
