"""Approximate candidates: inverted lists, bit codes and graphs in front of the exact search."""
