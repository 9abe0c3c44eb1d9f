"""The `fast3d` command line: options in, calls into fast3d_core, rich out."""

from fast3d_cli.search_path import leave_out_current_folder

leave_out_current_folder()  # here, before anything else is imported
