"""The bench on a CUDA device: events, peak memory, captured steps. Skipped where there is none."""

import time
from dataclasses import replace

import pytest
import torch

from fast3d_core.bench.run import Bench
from fast3d_core.bench.shapes import random_subject
from fast3d_core.runtime.stopwatch import Stopwatch
from tests.bench.test_run import OPTIONS, SETTINGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


def test_events_count_what_the_host_does():
    watch = Stopwatch(torch.device("cuda"))
    time.sleep(0.05)
    watch.mark("host")
    torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
    watch.mark("device")
    seconds = watch.seconds()
    assert 0.05 <= seconds["host"] < 0.07
    assert 0.01 < seconds["device"] < 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_all_rows(dtype):
    subject = random_subject("tiny", torch.device("cuda"), dtype, 80, seed=0)
    options = replace(OPTIONS, methods=["vanilla", "sap", "fastv"], baselines=True, reuse_scene=True)
    result = Bench(subject, SETTINGS, options).run()
    assert len(result.rows) == 2 * (3 * 2 + 2) + 1 and result.notes == []
    assert all(row.peak_memory_bytes > 0 for row in result.rows)
    weights = sum(p.numel() * p.element_size() for p in subject.model.llm.parameters())
    assert all(row.peak_memory_bytes > weights for row in result.rows)
