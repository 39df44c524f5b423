"""Numbers from arrays alone: metrics, intervals, curves and probabilities."""
