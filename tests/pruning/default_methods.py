"""One list through which a pruning method enters the tests: add settings that are worth trying, for an LLM of 4 layers.

Engines (tests/llm/test_engines.py), plans, options, run names (tests/pruning/) and the command line (tests/cli/) take
the methods from here, and `test_every_method_has_examples` fails for one that is not listed.
"""

from fast3d_core.plan import Units
from fast3d_core.pruning import FastV, Gap, Pruner, Random, Sap, Vanilla

LAYERS = 4
UNITS = Units(count=100, tokens=3)

EXAMPLES: dict[str, list[Pruner]] = {
    "vanilla": [Vanilla()],
    "random": [Random(layer=k, keep=n, seed=3) for k, n in [(0, 30), (1, 9), (2, 45), (LAYERS - 1, 3)]],
    "fastv": [FastV(layer=1, keep=6), FastV(layer=3, keep=30)],
    "gap": [Gap(layer=k, keep=n) for k, n in [(0, 15), (1, 60), (2, 16), (LAYERS - 1, 1)]],
    "sap": [Sap(alpha=0.02), Sap(alpha=0.35), Sap(alpha=1.0)],
}

SELECTS_EVERY_STEP = ["fastv"]
"""Methods whose set the reference engine chooses again while it decodes, so that the fast engine's answers differ."""

ALL = [pruner for own in EXAMPLES.values() for pruner in own]
SAME_IN_BOTH_ENGINES = [pruner for pruner in ALL if pruner.name not in SELECTS_EVERY_STEP]
