"""`load_torch` under the name by which scripts outside this repository import it; `files/files.py` defines it."""

from fast3d_core.files.files import load_torch

__all__ = ["load_torch"]
