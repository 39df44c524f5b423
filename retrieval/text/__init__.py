"""A text side for encoders that have none."""
