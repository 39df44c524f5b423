"""Where-expressions: text to a tree, a tree to an exact mask of rows."""
