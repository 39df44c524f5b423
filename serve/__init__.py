"""An HTTP API and a page over opened indexes (extra ``serve``); it stands on the public names of `retr` alone."""
