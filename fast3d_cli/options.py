"""Options that several commands share."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fast3d_cli.console import note, note_once
from fast3d_core.errors import UsageError

if TYPE_CHECKING:
    from fast3d_core.config import Config
    from fast3d_core.maps.kind import MapKind

LARGEST = 2**63 - 1
"""What files of results and settings hold: one with a larger number is refused when it is read."""

MOST_SAMPLES = 4096
"""Of a batch, as in `eval.batch_size`."""


def any_limit(value: int | None) -> int | None:
    """A `--limit`: no dataset has as many samples as fit 64 bits, so larger numbers mean the same."""
    return None if value is None else min(value, LARGEST)


def any_seed(value: int | None) -> int | None:
    """A `--seed`: one beyond 64 bits, which could not be read back from a file, is taken modulo 2^63."""
    return value if value is None or abs(value) <= LARGEST else value % (LARGEST + 1)


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Config file. Default: ./fast3d.yaml, else the embedded demo.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a config key: --set model.dtype=float32. Repeatable.", metavar="KEY=VALUE"),
]
DatasetOption = Annotated[
    list[str] | None,
    typer.Option("--dataset", help="Only this dataset. Repeatable. Default: data.datasets.", rich_help_panel="Data"),
]
MeteorOption = Annotated[
    bool, typer.Option("--meteor/--no-meteor", help="METEOR needs a Java program that takes seconds to start.")
]
BUDGET = "Budget"  # panel of --help
LayerOption = Annotated[
    int | None, typer.Option("--layer", help="K: tokens are dropped from this layer on.", rich_help_panel=BUDGET)
]
KeepOption = Annotated[
    int | None, typer.Option("--keep", help="Visual tokens kept (the published 'rank').", rich_help_panel=BUDGET)
]
RatioOption = Annotated[
    float | None, typer.Option("--ratio", help="Layer-averaged percentage to prune.", rich_help_panel=BUDGET)
]
MapKindOption = Annotated[
    str | None,
    typer.Option(
        help="{logits}: what the maps hold, logits, or shares of attention, whose logarithm is taken. Default: as the "
        "files tell; shares are refused.",
        rich_help_panel="Data",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]


def check_datasets(names: Sequence[str] | None, option: str = "--dataset") -> None:
    """Raises `UsageError` for a dataset that does not exist."""
    from fast3d_core.registry import BENCHMARKS

    for name in names or ():
        if name not in BENCHMARKS.names():
            raise UsageError(f"{option}: there is no {name!r}; choose from {', '.join(BENCHMARKS.names())}")


def check_map_key(map_key: str | None) -> None:
    """Raises `UsageError` for a map that no map file holds."""
    from fast3d_core.maps.published import MAP_KEYS

    if map_key not in (None, *MAP_KEYS):
        raise UsageError(f"--map-key must be one of {', '.join(MAP_KEYS)}, not {map_key!r}")


def check_map_kind(map_kind: str | None) -> "MapKind | None":
    """What `--map-kind` says. Raises `UsageError` for a kind of map that there is not."""
    from fast3d_core.maps.kind import MAP_KINDS

    for kind in MAP_KINDS:
        if kind == map_kind:
            return kind
    if map_kind is not None:
        raise UsageError(f"--map-kind must be one of {', '.join(MAP_KINDS)}, not {map_kind!r}")
    return None


def path_override(key: str, path: Path | None) -> list[str]:
    """An option that names a file or folder, as the override of its config key; nothing where it was not given."""
    return [] if path is None else [f"{key}={dumps(str(path), ensure_ascii=False)}"]


def note_text_encoder(config: "Config") -> None:
    """Says so where GAP's text encoder is no folder: a mistyped one would be asked for at Hugging Face."""
    if isinstance(config.gap.text_encoder, str):
        note(f"gap.text_encoder: there is no folder {config.gap.text_encoder}; taking it from Hugging Face")


def note_refused() -> None:
    """Says which benchmarks and scene models of other packages are left out, and why."""
    from fast3d_core.registry import BENCHMARKS, MODELS

    for problem in (*BENCHMARKS.refused.values(), *MODELS.refused.values()):
        note_once(problem)


def load(path: Path | None, overrides: list[str] | None) -> "Config":
    """The config of a command; says so when it is the embedded demo."""
    from fast3d_core.defaults import load_config

    note_refused()
    config = load_config(path, overrides or (), note)
    if config.embedded:
        given = "no config given: " if path is None else ""
        note_once(f"{given}using the embedded demo, a small Chat-Scene and generated rooms")
    return config
