"""The files of an index: lock, manifests, segments, and the checks of files that others wrote."""

from retr.index.machine.arrow import without_pandas

without_pandas()
