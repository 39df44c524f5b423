"""The files of an index: lock, manifests, segments, and the checks of files that others wrote."""
