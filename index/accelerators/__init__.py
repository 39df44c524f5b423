"""Approximate search: inverted lists, bit codes and graphs that propose candidates for exact scoring."""
