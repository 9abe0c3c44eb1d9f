"""The rows that a bench makes: what was carried out, what it costs, what it is compared with."""

import json
import typing
from dataclasses import fields, replace

import pytest
import torch

from fast3d_core.bench.result import BASELINES, REUSE, BenchResult, BenchRow, Ratio, Roofline
from fast3d_core.bench.run import Bench, BenchOptions
from fast3d_core.bench.subject import gap_flops
from fast3d_core.config import GenerationConfig
from fast3d_core.errors import DataError, UsageError
from fast3d_core.llm.cost import cost, scene_flops
from tests.pruning.packages import HEAD, packages  # noqa: F401 (a fixture)

SETTINGS = GenerationConfig(beams=3, max_new_tokens=4)
OPTIONS = BenchOptions(["vanilla", "sap", "gap"], [1, 3], repeats=2, warmup=1)


@pytest.fixture(scope="module")
def saved():
    return []


@pytest.fixture(scope="module")
def result(tiny, saved):
    options = replace(OPTIONS, baselines=True, reuse_scene=True)
    return Bench(tiny, SETTINGS, options, saved=saved.append).run()


def row(result, name, batch):
    (found,) = [one for one in result.rows if (one.name, one.batch) == (name, batch)]
    return found


def test_every_row_is_there(result):
    ours = {(name + end, size) for name in OPTIONS.methods for size in (1, 3) for end in ("", REUSE)}
    stock = {("stock", 1), ("stock", 3), ("stock pruned", 1), ("stock pruned", 3), ("published", 1)}
    assert {(one.name, one.batch) for one in result.rows} == ours | stock
    assert {one.name for one in result.rows if one.baseline} == set(BASELINES)
    assert result.notes == []


def test_an_alpha_is_searched_whatever_its_default(tiny, packages):  # noqa: F811
    """Every method is timed at the ratio that is asked for."""
    fields = "alpha: float = setting(0.5, 'a share')\n    name: ClassVar[str] = 'own'"
    plan = "def plan(self, request): return Sap(self.alpha).plan(request)"
    flags = "needs_map = needs_logits = True"
    source = f"from fast3d_core.pruning import Sap\n@dataclass(frozen=True)\nclass Own(Pruner):\n    {fields}\n"
    packages.install(f"{HEAD}{source}    {flags}\n    {plan}\n", "own=Own")
    (one,) = Bench(tiny, SETTINGS, BenchOptions(["own"], [3], repeats=2, warmup=0)).run().rows
    assert one.kept.ratio == pytest.approx(90, abs=0.6) and one.settings["alpha"] not in (0.5, 1)


def test_it_is_saved_after_every_row(saved, result):
    assert [len(one.rows) for one in saved] == list(range(len(result.rows) + 1))
    assert saved[-1] == result


def test_methods_prune_alike(result):
    for one in result.rows:
        unpruned = one.name.removesuffix(REUSE) in ("vanilla", "stock", "published")
        assert one.kept.ratio == pytest.approx(0 if unpruned else 90, abs=0.6), one.name
    assert row(result, "gap", 3).kept.tokens == 12  # K = 1 of 16 layers
    assert row(result, "gap", 3).kept.objects.mean == 4
    assert row(result, "sap", 3).kept.objects.mean == pytest.approx(10, abs=0.6)
    assert row(result, "sap", 3).kept == row(result, "stock pruned", 3).kept  # the same tokens
    assert row(result, "sap", 1).settings["alpha"] != row(result, "sap", 3).settings["alpha"]


def test_times(result):
    for one in result.rows:
        assert one.samples == 2 * one.batch
        assert 0 < one.end_to_end_seconds.low <= one.end_to_end_seconds.median <= one.end_to_end_seconds.high
        needs_map = one.name.removesuffix(REUSE) in ("sap", "gap", "stock pruned")
        assert (one.gap_seconds is not None) == needs_map
        assert one.warmup_seconds > 0
        assert (one.in_a_row_seconds is None) == one.baseline
        total = one.in_a_row_seconds or one.end_to_end_seconds
        assert 0.2 < total.median / one.end_to_end_seconds.median < 5  # on a CPU they mean the same
        assert one.samples_per_second == pytest.approx(one.batch / total.median)
        assert one.ms_per_sample == pytest.approx(1000 / one.samples_per_second)
        assert one.step_seconds.high * 3 < one.end_to_end_seconds.high
        assert (one.flops is None) == (one.roofline is None) == one.baseline
        assert one.peak_memory_bytes is None


def test_flops_are_the_plan_s(tiny, result):
    shape, element = tiny.model.shape, {"beams": 3, "steps": 4, "element_bytes": 4}
    vanilla = cost(shape, [300] * shape.layers, text=80, **element)
    flops = row(result, "vanilla", 3).flops
    assert (flops.prefill, flops.decode) == (vanilla.prefill_flops, vanilla.decode_flops)
    assert flops.gap is None
    gap = cost(shape, [300] + [12] * (shape.layers - 1), text=80, **element)
    assert row(result, "gap", 3).flops.prefill == gap.prefill_flops
    numbers = [0, 1]
    expected = [flops for number in numbers for flops in gap_flops(tiny.gap, tiny.batch(3, number))]
    assert row(result, "gap", 3).flops.gap == pytest.approx(sum(expected) / 6)


def test_flops_with_scenes_reused(tiny, result):
    """Two batches ask about the same scene, which is read once."""
    shape = tiny.model.shape
    batch = tiny.batch(3, 0)
    shared = tiny.model.prefix(batch.scenes[batch.samples[0].scene_id]).shared
    assert 300 < shared < 380
    own = cost(shape, [300] * shape.layers, text=80, beams=3, steps=4, element_bytes=4, new=380 - shared).prefill_flops
    assert row(result, "vanilla" + REUSE, 3).flops.prefill == own + scene_flops(shape, shared) / 6
    assert row(result, "vanilla" + REUSE, 1).flops.prefill == own + scene_flops(shape, shared) / 2


def test_rooflines_are_times_of_the_measured(result):
    for one in result.rows:
        if one.roofline is None:
            continue
        parts = [one.roofline.prefill.seconds, 3 * one.roofline.step.seconds]
        parts += [one.roofline.gap.seconds] if one.roofline.gap else []
        assert one.roofline.end_to_end.seconds == pytest.approx(sum(parts))
        assert one.roofline.end_to_end.times == pytest.approx(
            one.in_a_row_seconds.median / one.roofline.end_to_end.seconds
        )


def test_ratios(result):
    found = {(one.row, one.batch, one.against): one for one in result.ratios}
    sap, vanilla, stock = row(result, "sap", 3), row(result, "vanilla", 3), row(result, "stock", 3)
    one = found["sap", 3, "vanilla"]
    assert one.end_to_end == pytest.approx(vanilla.in_a_row_seconds.median / sap.in_a_row_seconds.median)
    assert one.prefill == pytest.approx(vanilla.prefill_seconds.median / sap.prefill_seconds.median)
    assert found["sap", 3, "stock"].end_to_end == pytest.approx(sap.samples_per_second / stock.samples_per_second)
    published = row(result, "published", 1)
    expected = sap.samples_per_second / published.samples_per_second  # a sample of one against a sample of the other
    assert found["sap", 3, "published"].end_to_end == pytest.approx(expected)
    assert {key[2] for key in found if key[:2] == ("sap" + REUSE, 3)} == {"sap", "vanilla", *BASELINES}
    assert not [key for key in found if key[0] in BASELINES or key[0] == key[2]]


def test_it_is_plain_data_in_the_documented_form(result):
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["schema"] == 1 and len(plain["rows"]) == len(result.rows)
    assert set(plain["rows"][0]) == set(typing.get_type_hints(BenchRow))
    for cls in (BenchResult, BenchRow, Ratio, Roofline):
        assert all(field.name in cls.__doc__ for field in fields(cls) if field.name not in ("end_to_end", "prefill"))
    assert plain["shape"]["layers"] == 16 and plain["dtype"] == "float32"
    assert plain["environment"]["attention"] == "sdpa + sdpa"
    assert plain["rates"]["matmul_flops"] > 0 and plain["settings"]["generation"]["min_length"] == 5


def test_a_row_that_does_not_fit_is_left_out(tiny, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    options = replace(OPTIONS, methods=["vanilla", "sap"], batches=[1], baselines=True, repeats=1, warmup=0)
    monkeypatch.setattr("fast3d_core.bench.passes.stock_generate", full)
    result = Bench(tiny, SETTINGS, options).run()
    assert [one.name for one in result.rows] == ["vanilla", "sap"]
    assert len(result.notes) == 3 and "stock pruned, batch 1: left out, cpu is out of memory" in result.notes
    monkeypatch.setattr(tiny.model.engine, "prefill", full)
    with pytest.raises(DataError, match="vanilla, batch 1: left out"):
        Bench(tiny, SETTINGS, options).run()


def test_fastv_and_random(tiny):
    options = replace(OPTIONS, methods=["fastv", "random"], batches=[1], repeats=1, warmup=0, seed=3)
    fastv, random = Bench(tiny, SETTINGS, options).run().rows
    assert fastv.kept.tokens == random.kept.tokens == 12 and random.kept.objects.mean == 4
    assert (random.settings["seed"], fastv.settings) == (3, {"layer": 1, "keep": 12})


def test_one_new_token(tiny):
    options = replace(OPTIONS, methods=["vanilla"], batches=[2], repeats=1, warmup=0)
    (only,) = Bench(tiny, replace(SETTINGS, max_new_tokens=1), options).run().rows
    assert only.step_seconds is None and only.roofline.step is None
    assert only.roofline.end_to_end.seconds == only.roofline.prefill.seconds


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"methods": ["sapp"]}, "did you mean sap"), ({"methods": ["gap"], "ratio": 99}, "cannot be pruned from layer")],
)
def test_what_cannot_be_meant_stops_before_anything_is_measured(tiny, changes, message, monkeypatch):
    monkeypatch.setattr("fast3d_core.bench.run.Machine", None)
    with pytest.raises(UsageError, match=message):
        Bench(tiny, SETTINGS, replace(OPTIONS, **changes))
