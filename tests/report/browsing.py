"""What tests read off a page, and where they leave pictures of it: in $FAST3D_ARTEFACTS, else in build/artefacts."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARTEFACTS = Path(os.environ.get("FAST3D_ARTEFACTS", ROOT / "build" / "artefacts"))


def room(page):
    """What the canvas shows."""
    return page.evaluate("document.querySelector('#room canvas').toDataURL()")


def kept(page):
    return page.evaluate("[...sceneBrowser.kept].sort((a, b) => a - b)")


def keep_screenshot(page, name):
    page.wait_for_timeout(200)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)
