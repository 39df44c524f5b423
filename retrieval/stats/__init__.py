"""Statistics on arrays alone: metrics, intervals, curves and probabilities."""
