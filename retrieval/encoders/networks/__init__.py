"""The networks of the published models in torch; each is handed its card and files by its module in `systems`."""
