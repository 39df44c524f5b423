"""Linear heads: an index adapted to a label column."""
