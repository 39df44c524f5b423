"""What is wrong in an archive, what of it to annotate first, and a map of it."""
