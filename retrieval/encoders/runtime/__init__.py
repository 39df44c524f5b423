"""Running a network: torch, devices, batches, pixels in, truncated texts said."""
