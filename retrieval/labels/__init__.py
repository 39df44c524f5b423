"""Label sets of zero-shot questions, and the labelled rows of an index."""
