"""A transform that an index fits on its own rows, without labels, and puts behind its encoder."""
