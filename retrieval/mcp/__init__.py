"""The index for agents, over the Model Context Protocol: what they see, and the server that hands it out."""
