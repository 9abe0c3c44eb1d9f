"""The doctor on a GPU: skipped with the reason where there is none."""

import pytest
import torch

from tests.doctor import conftest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def troubles(findings):
    """But for one: machines with GPUs may run a checkout as it is."""
    return [one for one in conftest.troubles(findings) if "not installed as a package" not in one.what]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_device_and_memory(examined, dtype):
    found = examined("model.device=cuda", f"model.dtype={dtype}", methods=["vanilla"])
    assert troubles(found) == []
    told = {one.area: one.what for one in found}
    assert torch.cuda.get_device_name() in told["model.device"] and "on cuda" in told["eval.batch_size"]


def test_no_such_device(examined):
    (found, _) = troubles(examined("model.device=cuda:99", methods=["vanilla"]))
    assert found.area == "model.device" and "CUDA devices" in found.what


def test_a_number_type_by_emulation(examined, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    (found,) = troubles(examined("model.device=cuda", "model.dtype=bfloat16", methods=["vanilla"]))
    assert found.status == "warning" and "by emulation" in found.what
