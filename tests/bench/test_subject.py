"""What a config names, as the bench asks it: the real questions, in batches, and the network's own maps."""

import pytest
import torch

from fast3d_core.bench.subject import gap_flops, predicted_maps, real_subject
from fast3d_core.config import load_config
from fast3d_core.errors import DataError
from fast3d_core.runtime.progress import Silent
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real():
    return real_subject(load_config(MINIATURE), CPU, Silent(), gap=True)


def test_batches_take_the_datasets_in_turn(real):
    """Three questions each; they begin anew."""
    batches = [real.batch(4, number) for number in range(4)]
    asked = [(sample.dataset, sample.index) for batch in batches for sample in batch.samples]
    names = ["scanrefer", "multi3dref", "scan2cap", "scanqa", "sqa3d"]
    assert asked[:15] == [(name, index) for index in range(3) for name in names]
    assert asked[15] == ("scanrefer", 0)
    assert set(batches[0].scenes) == set(batches[0].locations) == {s.scene_id for s in batches[0].samples}
    again = real.batch(4, 0)
    assert again.samples == batches[0].samples
    assert all(again.scenes[name] is not scene for name, scene in batches[0].scenes.items())  # no cache knows it


def test_maps_are_the_network_s(real, fixture):
    """As they were predicted into files."""
    batch = real.batch(7, 1)
    files = {sample.dataset: load_maps(fixture.config.maps.predicted, sample.dataset, 3) for sample in batch.samples}
    expected = torch.stack([files[sample.dataset][sample.index] for sample in batch.samples])
    torch.testing.assert_close(predicted_maps(real.gap, batch).logits(), expected, atol=1e-4, rtol=0)


def test_work_of_the_network(real):
    batch = real.batch(3, 0)
    tokens = [len(real.gap.tokenizer([sample.prompt])[0][0]) for sample in batch.samples]
    assert gap_flops(real.gap, batch) == [real.gap.network.flops(count) for count in tokens]
    everything = sum(p.numel() for p in real.gap.network.parameters())
    words = real.gap.network.text_encoder.embeddings.word_embeddings.weight.numel()
    assert real.gap.read_bytes == 4 * (everything - words)


def test_without_maps_no_network_is_read(files):
    (files / "gap" / "checkpoint_spatial.pth").unlink()
    config = load_config(files / "fast3d.yaml")
    assert real_subject(config, CPU, Silent(), gap=False).gap is None
    with pytest.raises(DataError, match="gap.checkpoint"):
        real_subject(config, CPU, Silent(), gap=True)
