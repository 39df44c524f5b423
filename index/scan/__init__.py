"""Exact search over blocks of rows on a CPU."""
