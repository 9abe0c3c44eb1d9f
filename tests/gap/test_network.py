"""The GAP network against numbers recorded from the published one, and files that do not fit."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fast3d_core.config import load_config
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.gap.checkpoint import load_gap, read_tensors, save_gap, write_published
from fast3d_core.gap.network import GapNetwork, GapShape, kl_loss, pairwise_numbers
from fast3d_core.gap.text import QuestionTokenizer, load_text_encoder
from tests.conftest import MINIATURE, ROOT_DATA

RECORDED = ROOT_DATA / "gap"
SHIPPED = MINIATURE.parent / "gap"
CHECKPOINTS = {
    "spatial": SHIPPED / "checkpoint_spatial.pth",
    "nospatial": RECORDED / "checkpoint_nospatial.pth",
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs():
    return torch.load(RECORDED / "inputs.pt", weights_only=True)


def config(checkpoint, *overrides):
    return load_config(MINIATURE, [f"gap.checkpoint={checkpoint}", "gap.heads=4", *overrides])


def run(network, inputs, rows=slice(None), pad=0):
    ids, lengths = QuestionTokenizer(SHIPPED / "roberta_tiny")([inputs["prompts"][i] for i in range(4)[rows]])
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    features = torch.cat([inputs["object_features"], inputs["object_img_features"]], dim=-1)[rows]
    ids, mask = (torch.nn.functional.pad(x, (0, pad), value=v) for x, v in ((ids, 1), (mask, 0)))
    return network(features, inputs["object_locations"][rows], ids, mask)


@pytest.mark.parametrize("tag", CHECKPOINTS)
def test_logits_loss_and_gradients_are_the_recorded_ones(tag, inputs):
    expected = torch.load(RECORDED / f"outputs_{tag}.pt", weights_only=True)
    norms = json.loads((RECORDED / f"grad_norms_{tag}.json").read_text())
    network = load_gap(config(CHECKPOINTS[tag]), CPU)
    ids, _ = QuestionTokenizer(SHIPPED / "roberta_tiny")(inputs["prompts"])
    assert torch.equal(ids.long(), expected["input_ids"])
    logits = run(network, inputs)
    assert (logits - expected["logits"]).abs().max() < 1e-5
    loss = kl_loss(logits, inputs["attn_maps"]).mean()
    assert abs(loss.item() - expected["loss"].item()) < 1e-6
    loss.backward()
    names = dict(network.named_parameters())
    assert set(names) == set(norms)
    for name, norm in norms.items():
        if norm is None:
            assert names[name].grad is None
        else:  # a few are 0 but for rounding (a shift of all logits, of all keys): recorded as 1e-8
            assert names[name].grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=2e-7), name


@pytest.mark.parametrize("tag", CHECKPOINTS)
def test_neither_the_batch_nor_padding_changes_logits(tag, inputs):
    network = load_gap(config(CHECKPOINTS[tag]), CPU)
    with torch.inference_mode():
        together = run(network, inputs, pad=5)
        for i in range(4):
            assert torch.allclose(run(network, inputs, slice(i, i + 1)), together[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("tag", CHECKPOINTS)
def test_round_trips(tag, inputs, tmp_path):
    network = load_gap(config(CHECKPOINTS[tag]), CPU)
    ours, published = tmp_path / "x.safetensors", tmp_path / "x.pth"
    save_gap(ours, network, step=7)
    write_published(published, read_tensors(ours)[0], step=7)
    content = torch.load(published, weights_only=True)
    assert set(content) == {"step", "optimizer_state_dict", "model_state_dict"}
    # Ours tells the number of heads; the published form without the spatial decoder does not.
    for path, overrides in ((ours, ["gap.heads=12"]), (published, [])):
        again = load_gap(config(path, *overrides), CPU)
        assert again.shape == network.shape
        assert torch.equal(run(again, inputs), run(network, inputs))


def test_pairwise_numbers_are_the_recorded_ones(inputs):
    expected = torch.load(RECORDED / "outputs_spatial.pt", weights_only=True)["pairwise_locs_row0"]
    assert torch.allclose(pairwise_numbers(inputs["object_locations"])[:, 0], expected, atol=1e-6)


def test_kl_ignores_scale_and_empty_targets(inputs):
    logits, targets = torch.randn(3, 100), torch.rand(3, 100)
    targets[:, 50:] = 0
    assert torch.allclose(kl_loss(logits, targets), kl_loss(logits, 7 * targets), atol=1e-6)
    shares = targets.double() / targets.double().sum(-1, keepdim=True)
    naive = (shares * (shares / (logits.double().softmax(-1) + 1e-8)).log()).nan_to_num(0).sum(-1)
    assert torch.allclose(kl_loss(logits, targets).double(), naive, atol=1e-5)


def test_a_new_network_has_the_published_initialisation():
    encoder = load_text_encoder(SHIPPED / "roberta_tiny")
    torch.manual_seed(0)
    network = GapNetwork(GapShape(features=128, hidden=48, heads=4, layers=2), encoder)
    for name, parameter in network.mm_encoder.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.dim() > 1:
            assert 0.015 < parameter.std() < 0.025, name
        else:
            assert (parameter == 1).all(), name


def test_flops_are_those_that_torch_counts(inputs):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for tag, checkpoint in CHECKPOINTS.items():
        network = load_gap(config(checkpoint), CPU)
        # The counter knows neither the CPU's fused attention nor what torch takes where no gradient is wanted.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            run(network, inputs, slice(0, 1))
        assert network.flops(43) == pytest.approx(counter.get_total_flops(), rel=0.02), tag


def test_checkpoints_that_do_not_fit(tmp_path):
    content = torch.load(CHECKPOINTS["spatial"], weights_only=True)
    tensors = content["model_state_dict"]

    def refused(change, *overrides):
        changed = dict(tensors)
        change(changed)
        path = tmp_path / "bad.pth"
        torch.save({"model_state_dict": changed}, path)
        with pytest.raises(DataError) as error:
            load_gap(config(path, *overrides), CPU)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "lacks text_projector.bias" in refused(lambda t: t.pop("text_projector.bias"))
    assert "unknown name: extra" in refused(lambda t: t.update(extra=torch.zeros(1)))
    assert "instead of" in refused(lambda t: t.update({"text_projector.bias": torch.zeros(3)}))
    assert "no 2-d tensor obj_feat_projector.weight" in refused(lambda t: t.pop("obj_feat_projector.weight"))
    assert "NaN" in refused(lambda t: t.update({"text_projector.bias": torch.full((48,), torch.nan)}))
    bias = "text_projector.bias"
    for odd in (torch.zeros(48).to_sparse(), torch.zeros(48, device="meta")):
        assert "was not loaded" in refused(lambda t, odd=odd: t.update({bias: odd}))
    for odd in (torch.zeros(48, dtype=torch.int64), 1.0):
        assert f"{bias!r} is no ordinary tensor" in refused(lambda t, odd=odd: t.update({bias: odd}))
    assert "no 'model_state_dict'" in refused(lambda t: t.update({7: torch.zeros(1)}))
    path = tmp_path / "bad.safetensors"
    with pytest.raises(DataError, match="the last checkpoint: .* does not exist"):
        read_tensors(path, "the last checkpoint")
    path.write_bytes(b"\x08" * 100)
    with pytest.raises(DataError, match="cannot be read"):
        load_gap(config(path), CPU)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="is not a GAP checkpoint"):
        load_gap(config(path), CPU)
    with pytest.raises(DataError, match="which 5 heads do not divide; set gap.heads"):
        load_gap(config(CHECKPOINTS["nospatial"], "gap.heads=5"), CPU)


def test_a_text_encoder_of_another_width(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    RobertaModel(RobertaConfig(hidden_size=24, num_attention_heads=2, num_hidden_layers=1, vocab_size=390)
    ).save_pretrained(tmp_path / "other")  # fmt: skip
    with pytest.raises(DataError, match="is 24 wide, the text encoder in .* is 48 wide"):
        load_gap(config(CHECKPOINTS["spatial"], f"gap.text_encoder={tmp_path / 'other'}"), CPU)
    with pytest.raises(DataError, match="gap.text_encoder: .*config.json does not exist"):
        (tmp_path / "empty").mkdir()
        load_gap(config(CHECKPOINTS["spatial"], f"gap.text_encoder={tmp_path / 'empty'}"), CPU)
    odd = json.loads((SHIPPED / "roberta_tiny" / "config.json").read_text()) | {"hidden_dropout_prob": -1}
    (tmp_path / "empty" / "config.json").write_text(json.dumps(odd))
    with pytest.raises(DataError, match="dropout probability has to be between 0 and 1"):
        load_gap(config(CHECKPOINTS["spatial"], f"gap.text_encoder={tmp_path / 'empty'}"), CPU)


def test_more_layers_than_can_be_meant(tmp_path):
    tensors = torch.load(CHECKPOINTS["spatial"], weights_only=True)["model_state_dict"]
    tensors |= {f"mm_encoder.layers.{i}.x": torch.zeros(1) for i in range(2000)}
    torch.save({"model_state_dict": tensors}, tmp_path / "deep.pth")
    with pytest.raises(DataError, match="it has 2000 layers"):
        load_gap(config(tmp_path / "deep.pth"), CPU)


def in_another_form(files, change):
    path = files / "gap" / "checkpoint_spatial.pth"
    content = load_torch(path, "a test")
    state = dict(content["model_state_dict"])
    torch.save(change(state), path)
    return load_config(files / "fast3d.yaml")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {"model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {
            "model_state_dict": {**state, "text_encoder.embeddings.position_ids": torch.arange(130)[None]},
        },
        lambda state: {
            "model": {
                **{f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
                "_orig_mod.module.text_encoder.embeddings.position_ids": torch.arange(130)[None],
            }
        },
        lambda state: state,
    ],
)
def test_checkpoints_of_other_trainers(files, change):
    wanted = load_gap(load_config(MINIATURE), torch.device("cpu")).state_dict()
    found = load_gap(in_another_form(files, change), torch.device("cpu"))
    assert found.text_encoder.embeddings.position_ids.shape[1] == found.text_encoder.config.max_position_embeddings
    assert all(found.state_dict()[name].equal(tensor) for name, tensor in wanted.items())


def test_a_checkpoint_in_a_folder_is_read(files):
    (files / "trained").mkdir()
    (files / "gap" / "checkpoint_spatial.pth").rename(files / "trained" / "best.pth")
    load_gap(load_config(files / "fast3d.yaml", [f"gap.checkpoint={files / 'trained'}"]), torch.device("cpu"))
