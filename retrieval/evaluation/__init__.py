"""How good an index is on its own labelled rows, and how published systems were evaluated."""
