import pytest
import torch

from fast3d_core.bench.shapes import random_subject


@pytest.fixture(scope="session")
def tiny():
    """The random subject that stands for the large ones."""
    return random_subject("tiny", torch.device("cpu"), torch.float32, 80, seed=0)
