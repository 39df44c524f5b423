"""Linear heads fitted to a label column, and the adapted indexes they give."""
