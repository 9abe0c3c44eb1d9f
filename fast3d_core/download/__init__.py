"""Getting the released files: the catalogue of what there is, where it comes from, and how it gets to disk.

`catalogue.py` says what there is; `hub.py` and `drive.py` are the two sources; `archives.py` unpacks; `licences.py`
remembers what was accepted; `settings.py` edits fast3d.yaml; `work.py` puts them together.
"""

from fast3d_core.download.catalogue import ITEMS, Item, Licence, chosen
from fast3d_core.download.licences import accept, not_accepted
from fast3d_core.download.work import Outcome, Planned, download, plan_downloads

__all__ = [
    "ITEMS",
    "Item",
    "Licence",
    "Outcome",
    "Planned",
    "accept",
    "chosen",
    "download",
    "not_accepted",
    "plan_downloads",
]
