"""Audits of a whole index: patient names, duplicates, and leaks between the parts of a split."""
