"""Published models, one a module with its `SPEC`; their networks are in `networks`."""
