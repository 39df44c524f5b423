"""Classes: the named sets of a zero-shot question, and the rows of an index that carry a label."""
