"""Building: decode, embed and write what is new in an archive."""
