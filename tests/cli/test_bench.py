"""`fast3d bench` as a user runs it, on the tiny shape and on the miniature, which stands in for the demo."""

import json

import pytest

from tests.cli.test_search_alpha import error

QUICK = ["--batch", "2", "--repeats", "1", "--warmup", "0", "--new-tokens", "2", "--beams", "2"]
TINY = ["bench", "--llm", "tiny", *QUICK]


def test_tables(fast3d):
    done = fast3d(*TINY, "-m", "vanilla", "-m", "sap", "-m", "gap", "--baselines", "--reuse-scene")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "…" not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    names = ["vanilla", "vanilla", "sap", "sap", "gap", "gap", "published", "stock", "stock"]
    assert [line[0] for line in lines if line and line[0] in names] == [*names, *names, *names[:6]]
    (times,) = [line for line in lines if line[:4] == ["sap", "2", "90.0%", "10.0"]]
    assert len(times) == 4 + 1 + 6 and all(float(cell) > 0 for cell in times[5:])
    ratios = [line for line in lines if line and line[-1].endswith("x")]
    assert [line[:2] for line in ratios][-1] == ["gap", "reuse"] and len(ratios[-1]) == 3 + 6
    for said in ("sap, batch 2: alpha 0.", "attention sdpa + sdpa", "published: stock transformers", "floors are at"):
        assert said in done.stderr


def test_json_and_file(fast3d, tmp_path):
    done = fast3d(*TINY, "--json", "--out", "result.json", "--ratio", "50", "--text-tokens", "90", "--seed", "3")
    printed = json.loads(done.stdout)
    assert json.loads((tmp_path / "result.json").read_text()) == printed
    assert [row["name"] for row in printed["rows"]] == ["vanilla", "sap"]
    assert printed["rows"][1]["kept"]["ratio"] == pytest.approx(50, abs=1)
    assert "90 text tokens" in printed["settings"]["questions"]
    generation = printed["settings"]["generation"]
    assert (generation["beams"], generation["max_new_tokens"], generation["repetition_penalty"]) == (2, 2, 3)
    assert (printed["llm"], printed["dtype"], printed["settings"]["seed"]) == ("tiny", "float32", 3)


def test_an_interrupted_run_leaves_what_it_measured(fast3d, tmp_path, monkeypatch):
    from fast3d_core.bench import run

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "stock_pass", interrupted)
    done = fast3d(*TINY, "--baselines", "--out", "result.json", check=False)
    assert done.returncode == 130 and "what was measured is in result.json" in done.stderr
    assert [row["name"] for row in json.loads((tmp_path / "result.json").read_text())["rows"]] == ["vanilla", "sap"]
    again = fast3d(*TINY, "--out", "result.json", check=False)
    assert "--out: result.json is there already" in error(again, 2)


def test_real_files(fast3d, files):
    """The embedded demo, a config, or a folder with one; its own dtype and generation settings."""
    results = [
        json.loads(fast3d("bench", "--llm", llm, *QUICK, "--json").stdout)
        for llm in ("demo", files / "fast3d.yaml", files)
    ]
    for result in results:
        sap = result["rows"][1]
        assert sap["kept"]["ratio"] == pytest.approx(90, abs=1) and sap["gap_seconds"]["median"] > 0
        assert "scanrefer, multi3dref" in result["settings"]["questions"]
        assert result["dtype"] == "float32" and result["shape"]["layers"] == 4
    assert [result["llm"] for result in results] == ["demo", str(files / "fast3d.yaml"), str(files)]
    other = fast3d(
        "bench", "--llm", files, *QUICK, "--json", "--dtype", "bfloat16", "-m", "random", "--ratio", "40", "--seed", "7"
    )
    result = json.loads(other.stdout)
    assert result["dtype"] == "bfloat16" and result["rows"][0]["settings"]["seed"] == 7


def test_at_least(fast3d):
    assert "sap makes at least 0.01x" in fast3d(*TINY, "--at-least", "0.01").stderr
    done = fast3d(*TINY, "--at-least", "1000", check=False)
    assert done.returncode == 1 and done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: batch 2: sap makes ") and last.endswith(
        "the samples per second of vanilla, not 1000x"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--llm", "70b"], "there is no 70b; choose 7b, 13b, tiny or demo, or name a fast3d.yaml"),
        (["--llm", "tiny", "-m", "sapp"], "did you mean sap?"),
        (["--llm", "tiny", "-m", "gap", "--ratio", "98"], "the largest reachable ratio is 92.81%"),
        (["--llm", "tiny", "--ratio", "100"], "--ratio is a percentage from 0 to below 100, not 100"),
        (["--llm", "tiny", "--text-tokens", "9"], "--text-tokens must be at least"),
        (["--llm", "demo", "--text-tokens", "80"], "--text-tokens means nothing to demo"),
        (["--llm", "tiny", "--dtype", "int8"], "--dtype is one of float32, bfloat16, float16, not 'int8'"),
        (["--llm", "tiny", "--device", "gpu"], "--device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        (["--llm", "tiny", "-m", "sap", "--at-least", "2"], "--methods has to name both"),
    ],
)
def test_options_that_cannot_be_meant(fast3d, options, message):
    assert message in error(fast3d("bench", *options, check=False), 2)


def test_a_missing_gap_network(fast3d, files):
    (files / "gap" / "checkpoint_spatial.pth").unlink()
    assert "gap.checkpoint" in error(fast3d("bench", "--llm", files, *QUICK, check=False), 1)
    fast3d("bench", "--llm", files, *QUICK, "-m", "vanilla")
