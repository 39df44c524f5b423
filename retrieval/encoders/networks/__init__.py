"""Torch networks of the published models; each receives its card and files from its module in `systems`."""
