"""Evaluation of an index on its labelled rows, and the protocols of published systems."""
