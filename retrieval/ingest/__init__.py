"""From an archive into an index: what is new is decoded, embedded and written as rows."""
