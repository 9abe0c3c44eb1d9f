"""Asking on a GPU: skipped with the reason where there is none."""

import pytest
import torch

from fast3d_core import Asker, load_config
from tests.conftest import MINIATURE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("mode", ["vanilla", "sap_gap_K0_alpha0.5"])
def test_recorded_answers(fixture, recorded, mode):
    asker = Asker(load_config(MINIATURE, ["model.device=cuda"]))
    pruner, _, _ = fixture.mode(mode)
    for sample, want in zip(fixture.samples, recorded[mode], strict=True):
        reply = asker.ask(sample.prompt, sample.scene_id, pruner, "plain")
        assert reply.text == want["pred"] and reply.seconds["end_to_end"] > 0
