"""`eval.batch_size`: a number, or auto, which is as many samples as the device's memory holds."""

import torch

from fast3d_core.config import Config
from fast3d_core.evaluation.journal import begun_with
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.runtime.devices import available_memory

MOST = {"cuda": 128, "cpu": 16}  # larger batches gain nothing, and a kill loses more

# Of the memory; the rest is for what the arithmetic of `needs.py` leaves out: fragments, masks, the GAP network.
# Chosen, not measured.
_SHARE = 0.85


def batch_size(
    config: Config, job: Job, questions: Questions, device: torch.device, processes: int = 1, *, restart: bool = False
) -> int:
    """Samples per batch of a run, as the config says; for auto, what the run in its folder has, else what fits.

    Args:
        processes: that share the memory if `device` is a CPU.
    """
    if isinstance(config.eval.batch_size, int):
        return config.eval.batch_size
    begun = None if restart else begun_with(config.runs / job.name)
    if begun is not None and isinstance(size := begun.get("batch_size"), int) and size > 0:
        return size
    needs, planner = Needs.of_config(config), questions.planner(job)
    wanted = [need for samples in questions.samples.values() for need in needs.of_batch(samples, planner(samples))]
    available = available_memory(device) / (processes if device.type == "cpu" else 1)
    return needs.largest_batch(wanted, _SHARE * available, MOST[device.type])
