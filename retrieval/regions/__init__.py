"""Regions: parts of the pictures of an index, each with a vector of its own."""
