"""Where-expressions: parsed to a tree, and evaluated to an exact mask of rows."""
