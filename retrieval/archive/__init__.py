"""Archives: listing and reading pictures from folders, containers, lists and remote stores, and their label tables."""
