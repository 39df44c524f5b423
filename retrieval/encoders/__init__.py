"""Encoders: pictures and words become vectors, exactly as each model's authors compute them."""
