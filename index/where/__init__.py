"""Where-expressions: parsed to a tree, and evaluated to an exact mask of rows."""

from retr.index.machine.arrow import without_pandas

without_pandas()
