"""The files of a training: the last checkpoint, which a run continues from, the best one, and the log."""

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_write
from fast3d_core.files.fingerprints import differences
from fast3d_core.files.tensors import TensorFile, write_tensors
from fast3d_core.gap.checkpoint import read_tensors
from fast3d_core.gap.network import GapNetwork

BEST_FILE, LAST_FILE, LOG_FILE = "checkpoint_best.safetensors", "checkpoint_last.safetensors", "log.jsonl"

_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, by torch's names


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        step: how many steps were made.
        best: score of the best weights so far; best_step: the steps that they had.
    """

    step: int = 0
    best: float = -math.inf
    best_step: int = 0


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints that a training left in a folder."""
    return [folder / name for name in (BEST_FILE, LAST_FILE) if (folder / name).exists()]


def check_folder(folder: Path, left: list[Path], *, resume: bool, restart: bool) -> None:
    """Raises `UsageError` where a folder with the checkpoints `left` is neither to be continued nor started over."""
    if left and not resume and not restart:
        raise UsageError(
            f"{folder} holds a training run or its weights ({left[0].name}); "
            "continue with --resume, start over with --restart, or train into another folder with --out"
        )
    if left and folder / LAST_FILE not in left and not restart:
        raise UsageError(
            f"{folder} has {left[0].name}, but no {LAST_FILE} to continue from; "
            "start over with --restart, or train into another folder with --out"
        )


def clear_folder(folder: Path) -> None:
    """Removes a training's files. Raises `UsageError`, before, where one of them is somebody else's."""
    _check_own(folder)
    for name in (LAST_FILE, BEST_FILE, LOG_FILE):  # first what the others would be taken for a run by
        (folder / name).unlink(missing_ok=True)


def _check_own(folder: Path) -> None:
    """Raises `UsageError` where a file that a training writes is somebody else's; a damaged one may be ours."""
    for name, key in ((LAST_FILE, "settings"), (BEST_FILE, "step")):
        with contextlib.suppress(DataError):
            if key not in TensorFile(folder / name, "--out").metadata:
                raise UsageError(
                    f"{folder / name} was not written by `fast3d train-gap`; choose another folder with --out"
                )
    path = folder / LOG_FILE
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(100_000)
        start = '{"step": '
        if not first.startswith(start[: len(first)]):  # a kill may have cut it short
            raise UsageError(f"{path} is no log of `fast3d train-gap`; choose another folder with --out")


def save_last(
    folder: Path,
    state: TrainingState,
    settings: Mapping[str, Any],
    network: GapNetwork,
    named: Mapping[str, nn.Parameter],
    moments: Mapping[nn.Parameter, Mapping[str, Tensor]],
) -> None:
    """Writes the last checkpoint: weights, moments, step, and what they depend on.

    Args:
        named: the parameters that are trained; moments: the optimizer's state of each.
    """
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in named.items():
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = moments[parameter][moment]
    best = state.best if math.isfinite(state.best) else None
    metadata = {"step": state.step, "best": best, "best_step": state.best_step, "settings": settings}
    write_tensors(folder / LAST_FILE, tensors, metadata)


def load_last(
    folder: Path,
    settings: Mapping[str, Any],
    steps: int,
    network: GapNetwork,
    named: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> TrainingState:
    """Fills network and optimizer from the last checkpoint of a training of `steps` steps, and says where it stands.

    Raises:
        UsageError: it was made with other settings.
        DataError: it is damaged.
    """
    last = folder / LAST_FILE
    tensors, metadata = read_tensors(last, "--resume")
    try:
        changed = differences(metadata["settings"], settings)
        if changed:
            raise UsageError(
                f"{folder} holds a run with other settings ({', '.join(changed[:4])}); "
                "train into another folder with --out, or --restart to start over"
            )
        best = metadata["best"]
        state = TrainingState(
            int(metadata["step"]), -math.inf if best is None else float(best), int(metadata["best_step"])
        )
        if not 0 <= state.step <= steps:
            raise ValueError(f"it is at step {state.step} of {steps}")
        network.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        )
        for name, parameter in named.items():
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step), device=device if device.type == "cuda" else None),
                **{moment: tensors[f"{moment}.{name}"].to(device).view_as(parameter) for moment in _MOMENTS},
            }
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise DataError(f"{last} is damaged ({str(error)[:100]}); use --restart to start over") from None
    return state


def has_best(folder: Path, state: TrainingState) -> bool:
    """Whether the best weights are those that the last checkpoint names."""
    try:
        return TensorFile(folder / BEST_FILE, "").metadata.get("step") == state.best_step
    except DataError:
        return False


def append_log(folder: Path, step: int, values: Mapping[str, Any]) -> None:
    """Adds a line to the log."""
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **values}) + "\n")


def cut_log(folder: Path, step: int) -> None:
    """Drops what was logged after that step, as the steps after it are made again."""
    path = folder / LOG_FILE
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line that a kill cut short
    with atomic_write(path) as file:
        file.writelines(kept)
