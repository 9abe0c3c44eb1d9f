"""The `fast3d` command line: options in, calls into fast3d_core, rich out."""
