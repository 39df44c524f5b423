"""Folders, cached state and keys of this machine and its user, which are not part of an index."""
