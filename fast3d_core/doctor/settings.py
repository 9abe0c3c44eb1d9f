"""The config itself, and where it departs from the published evaluation."""

from collections.abc import Iterator
from dataclasses import asdict

from fast3d_core.config import DataConfig, GenerationConfig
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, ok


def config(case: Case) -> Iterator[Finding]:
    """Reads it. What differs from the published settings, the defaults, may well be meant."""
    found, _ = case.config, case.model_checks  # a kind that there is not is refused here
    published = {f"generation.{name}": value for name, value in asdict(GenerationConfig()).items()}
    own = {f"generation.{name}": value for name, value in asdict(found.generation).items()}
    published["data.max_objects"], own["data.max_objects"] = DataConfig().max_objects, found.data.max_objects
    differing = [f"{key} {own[key]} ({value})" for key, value in published.items() if own[key] != value]
    where = "the embedded demo" if found.embedded else str(found.source)
    others = f"; other than published: {', '.join(differing)}" if differing else ""
    yield ok(f"{where}, {len(found.origins)} keys set{others}")
