"""The rows of a snapshot: columns, ids and identities read, written, checked and purged."""
