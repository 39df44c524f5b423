"""Archives: where pictures lie, in every shape, and the table of labels that came with them."""
