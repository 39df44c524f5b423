"""Running networks: devices, precision, batches, preprocessing, truncated texts."""
