"""Scan all texts of an index for protected health information (PHI).

The scan knows forms, not people: names by their letters and their neighbours, dates finer than a year, numbers of
records and of telephones, addresses, DICOM UIDs, and titles of columns that promise any of these. A finding is a reason
to look, not a proof; an index without findings is not proven free of them. Values are shown masked: a report of
findings must not be one itself. How much is found is measured by ``benchmarks/phi.py``.
"""

from retr.retrieval.audit.phi.cells import kinds, mask
from retr.retrieval.audit.phi.scanning import PhiFinding, scan

__all__ = ["PhiFinding", "kinds", "mask", "scan"]
