"""What belongs to this machine and its user and travels with no index: folders, remembered state, keys."""
