"""Text sides for encoders that have none."""
