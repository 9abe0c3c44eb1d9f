"""The pruning methods, one a file, and the registry by which commands and configs name them.

`base.py` has what a method is, `request.py` what it may look at, `settings.py` how its fields become options,
`registry.py` where methods come from, `options.py` how commands build them. Importing this package imports no torch.
"""

from fast3d_core.pruning.base import Pruner, top_tokens
from fast3d_core.pruning.fastv import FastV
from fast3d_core.pruning.gap import Gap
from fast3d_core.pruning.random import Random
from fast3d_core.pruning.registry import METHODS
from fast3d_core.pruning.request import PlanRequest
from fast3d_core.pruning.sap import Sap
from fast3d_core.pruning.vanilla import Vanilla

BASELINE = Vanilla.name
"""The method that prunes nothing, to which reports and bench relate the others."""

DEFAULT = Sap.name
"""The method that `fast3d ask` answers by where none is named."""

__all__ = [
    "BASELINE",
    "DEFAULT",
    "METHODS",
    "FastV",
    "Gap",
    "PlanRequest",
    "Pruner",
    "Random",
    "Sap",
    "Vanilla",
    "top_tokens",
]
