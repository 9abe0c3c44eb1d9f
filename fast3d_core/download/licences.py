"""Which licences the user has accepted: once, for all downloads, remembered in the user's cache."""

import time
from collections.abc import Sequence
from pathlib import Path

from fast3d_core.download.catalogue import Item, Licence
from fast3d_core.errors import DataError
from fast3d_core.files import cache
from fast3d_core.files.files import load_json, write_json


def _record() -> Path:
    return cache.CACHE / "licences.json"


def not_accepted(items: Sequence[Item]) -> list[Licence]:
    """The licences of `items` that have not been accepted yet, each once."""
    known = _accepted()
    licences = dict.fromkeys(licence for item in items for licence in item.licences)
    return [licence for licence in licences if str(licence) not in known]


def accept(licences: Sequence[Licence]) -> None:
    """Remembers that the user has accepted these."""
    today = time.strftime("%Y-%m-%d")
    write_json(_record(), _accepted() | {str(licence): today for licence in licences})


def _accepted() -> dict[str, str]:
    """Licence -> the day on which it was accepted; a record that cannot be read has nothing."""
    try:
        found = load_json(_record(), "accepted licences")
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}
