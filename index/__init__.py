"""Vectors and metadata at rest, and search over them (numpy, pyarrow, faiss; never torch)."""
