"""README's table of the demo is what was measured."""

import json
import re

from fast3d_core.demo import WEIGHTS
from tests.cli.conftest import ROOT

NAMES = {"vanilla": "vanilla", "random": "random", "fastv": "FastV", "gap": "GAP", "sap": "GAP+SAP"}


def shown(number):
    interval = "" if number["low"] is None else f" ({number['low']:.1f}-{number['high']:.1f})"
    return f"{number['value']:.1f}{interval}".replace("100.0", "100")


def test_the_readme_s_table():
    measured = json.loads((WEIGHTS.parent / "measured.json").read_text())
    (table,) = re.findall(r"\| demo, 90% pruned .*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    rows = {cells[0]: cells[1:] for cells in ([c.strip() for c in r.strip("|").split("|")] for r in table.splitlines())}
    for row in measured["rows"]:
        cells = rows[NAMES[row["method"]]]
        *scores, last = (shown(score) for score in row["scores"].values())
        assert cells[:4] == scores and cells[5] == last  # between them is ScanQA's exact match, of another run
        assert cells[6] == shown(row["ratio"])
        assert cells[7].removesuffix("%") == f"{row['pruning_ratio']:.1f}".replace("0.0", "0")
        assert {score["n"] for score in row["scores"].values()} == {2000}
