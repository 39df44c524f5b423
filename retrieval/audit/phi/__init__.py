"""Scan all texts of an index for protected health information (PHI).

The scan knows forms, not people: names by their letters and their neighbours, dates finer than a year, numbers of
records and of telephones, addresses, DICOM UIDs, and titles of columns that promise any of these. A finding is a reason
to look, not a proof; an index without findings is not proven free of them. Values are shown masked: a report of
findings must not be one itself. How much is found is measured by ``benchmarks/phi.py``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retr.retrieval.audit.phi.cells import kinds, mask
    from retr.retrieval.audit.phi.scanning import PhiFinding, scan

__all__ = ["PhiFinding", "kinds", "mask", "scan"]

_HOMES = {"kinds": "cells", "mask": "cells", "PhiFinding": "scanning", "scan": "scanning"}


# not imported here: two threads that import a package and one of its modules first would wait for each other
def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
