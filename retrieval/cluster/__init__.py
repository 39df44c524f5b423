"""Building on many machines with Ray (extra ``ray``): Core actors, one a machine or a GPU."""
