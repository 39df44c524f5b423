"""Checkpoints and model folders: found, checked as data, hashed and loaded."""
