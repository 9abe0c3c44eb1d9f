"""The pruning methods, one a file, and the registry by which commands and configs name them."""

from fast3d_core.pruning.base import PlanRequest, Pruner, top_tokens
from fast3d_core.pruning.fastv import FastV
from fast3d_core.pruning.gap import Gap
from fast3d_core.pruning.random import Random
from fast3d_core.pruning.sap import Sap
from fast3d_core.pruning.vanilla import Vanilla

METHODS: dict[str, type[Pruner]] = {method.name: method for method in (Vanilla, Random, FastV, Gap, Sap)}

__all__ = ["METHODS", "FastV", "Gap", "PlanRequest", "Pruner", "Random", "Sap", "Vanilla", "top_tokens"]
