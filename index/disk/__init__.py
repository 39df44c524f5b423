"""An index at rest: files, lock, manifests, segments, and the checks of what others wrote."""
