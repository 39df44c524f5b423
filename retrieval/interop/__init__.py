"""Other people's tools: what reads an index, and what an index is made of, one module each."""
