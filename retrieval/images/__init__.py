"""Image readers, one a format: every file becomes the same 8-bit RGB picture whichever way it came."""
