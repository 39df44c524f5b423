"""One encoder a module with its `SPEC`, its network beside it."""
