"""Numbers that are none, and numbers that are too large: a line, and nothing written that is wrong or not read back."""

import io
import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fast3d_core.data.annotations import MOST_CHARACTERS
from fast3d_core.files.files import load_json
from fast3d_core.models.chat_scene.model import ChatScene

HUGE = "9" * 23
SCENE = "scene0011_00"


def spoil(files, scale=torch.nan):
    """Of the LLM's weights one number, or, with a factor, those by which float16 overflows."""
    path = files / "llm" / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    if scale != scale:
        state["model.layers.2.mlp.down_proj.weight"][0, 0] = scale
    else:
        state |= {name: tensor * scale for name, tensor in state.items() if "mlp.down_proj" in name}
    save_file(state, path, {"format": "pt"})
    return ["-c", files / "fast3d.yaml"]


@pytest.mark.parametrize("options", [
    ["-m", "vanilla"],
    ["-m", "vanilla", "--set", "generation.beams=1"],
    ["-m", "vanilla", "--engine", "reference"],
    ["-m", "vanilla", "--reuse-scene"],
    ["-m", "fastv", "--layer", "1", "--keep", "15"],
], ids=" ".join)  # fmt: skip
def test_eval_stops_at_answers_of_nan(fast3d, files, tmp_path, options):
    config = spoil(files)
    run = ["eval", *config, *options, "--dataset", "scanqa", "--no-meteor", "--name", "run"]
    done = fast3d(*run, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: the LLM computes NaN or infinity in float32; `fast3d doctor --deep`")
    parts = list((files / "runs" / "run").glob("part-*.jsonl"))
    assert not any(part.read_text() for part in parts) and not (files / "runs" / "run" / "result.json").exists()


def test_batches_before_one_of_nan_are_kept(fast3d, files, monkeypatch):
    calls, prompts = [], ChatScene.prompts

    def spoilt(self, scenes, questions):
        calls.append(questions)
        made = prompts(self, scenes, questions)
        return [replace(made[0], embeds=made[0].embeds * torch.nan)] if len(calls) == 2 else made

    monkeypatch.setattr(ChatScene, "prompts", spoilt)
    run = ["eval", "-c", files / "fast3d.yaml", "-m", "vanilla", "--dataset", "scanqa", "--batch", "1", "--no-meteor"]
    assert "computes NaN" in fast3d(*run, check=False).stderr
    (part,) = (files / "runs" / "vanilla").glob("part-*.jsonl")
    assert [json.loads(line)["batch"] for line in part.read_text().splitlines()] == [0]
    fast3d(*run)  # the numbers are right now: it goes on
    assert len(calls) == 2 + 2 and (files / "runs" / "vanilla" / "result.json").exists()


def test_overflow_of_float16(fast3d, files):
    config = [*spoil(files, 1e5), "--dataset", "scanqa", "--no-meteor"]
    done = fast3d("eval", *config, "-m", "vanilla", "--set", "model.dtype=float16", check=False)
    assert done.returncode == 1
    assert "computes NaN or infinity in float16; try --set model.dtype=bfloat16 or float32" in done.stderr
    fast3d("eval", *config, "-m", "vanilla", "--set", "model.dtype=bfloat16")


def test_ask_stops_at_nan(fast3d, files, monkeypatch):
    config = spoil(files)
    done = fast3d("ask", "what is it?", "--scene", SCENE, "-m", "vanilla", *config, check=False)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: the LLM computes NaN or infinity in float32")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"what is it?\nwhere is it?\n")))
    done = fast3d("ask", "-i", "--scene", SCENE, "-m", "vanilla", "--json", *config)
    assert ["NaN" in json.loads(line)["error"] for line in done.stdout.splitlines()] == [True, True]


def test_bench_stops_at_nan(fast3d, files):
    spoil(files)
    quick = ["--batch", "1", "--batch", "2", "--repeats", "1", "--warmup", "0", "--new-tokens", "2"]
    done = fast3d("bench", "--llm", files, "-m", "vanilla", *quick, check=False)
    assert done.returncode == 1 and not done.stdout
    assert [line for line in done.stderr.splitlines() if "NaN" in line] == [done.stderr.splitlines()[-1]]
    assert "timing vanilla, batch 2" not in done.stderr


@pytest.mark.parametrize("options", [
    ["-m", "vanilla", "--limit", HUGE],
    ["-m", "random", "--layer", "1", "--keep", "15", "--seed", HUGE],
    ["-m", "random", "--layer", "1", "--keep", "15", "--seed", f"-{HUGE}"],
], ids=" ".join)  # fmt: skip
def test_what_is_beyond_64_bits_is_read_back(fast3d, tmp_path, options):
    run = ["eval", *options, "--dataset", "scanqa", "--no-meteor", "--name", "run"]
    fast3d(*run)
    settings = load_json(tmp_path / "runs" / "run" / "settings.json", "run")
    assert settings["limit"] in (None, 2**63 - 1)
    assert settings.get("seed", 0) == (int(options[-1]) % 2**63 if "random" in options else 0)
    assert "loading the model" not in fast3d(*run).stderr
    fast3d("report", "--resamples", "100", "--seed", HUGE)


def test_a_store_of_a_huge_seed_is_read_back(fast3d, tmp_path):
    extract = ["extract", "--split", "val", "--dataset", "scanqa", "--targets", "store", "--seed", HUGE]
    fast3d(*extract, "--limit", HUGE)
    assert "loading the model" not in fast3d(*extract).stderr


@pytest.mark.parametrize("command", [
    ["extract", "--batch-size", HUGE],
    ["predict", "--batch-size", HUGE],
    ["bench", "--batch", HUGE],
    ["bench", "--beams", HUGE],
    ["bench", "--new-tokens", HUGE],
    ["bench", "--text-tokens", HUGE],
    ["bench", "--repeats", HUGE],
    ["bench", "--warmup", HUGE],
    ["train-gap", "--epochs", HUGE],
    ["train-gap", "--batch-size", HUGE],
    ["train-gap", "--save-every", HUGE],
    ["train-gap", "--lr", "1e308"],
    ["report", "--scenes", HUGE, "--html", "page.html"],
    ["eval", "-m", "vanilla", "--processes", HUGE],
    ["eval", "-m", "vanilla", "--batch", HUGE],
    ["eval", "-m", "gap", "--layer", "1", "--keep", HUGE],
    ["eval", "-m", "gap", "--layer", HUGE, "--keep", "3"],
    ["eval", "-m", "gap", "--ratio", "1e308"],
    ["eval", "-m", "sap", "--alpha", "1e308"],
], ids=" ".join)  # fmt: skip
def test_numbers_that_are_refused(fast3d, tmp_path, command):
    done = fast3d(*command, check=False)
    assert done.returncode == 2 and not done.stdout and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("settings.json"))


@pytest.mark.parametrize("setting", ["beams=1000", "beams=400"])
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_more_beams_than_the_vocabulary_has_candidates(fast3d, setting, engine):
    run = ["eval", "-m", "vanilla", "--dataset", "scanqa", "--no-meteor", "--engine", engine]
    done = fast3d(*run, "--set", f"generation.{setting}", check=False)
    assert done.returncode == 2 and "generation.beams is" in done.stderr.splitlines()[-1]
    assert "take at most 330" in done.stderr


LONG = "chair " * 200_000


@pytest.mark.parametrize(
    "command", [["eval", "-m", "vanilla"], ["predict", "--restart"], ["extract", "--split", "val"], ["bench"]]
)
def test_questions_that_no_llm_reads(fast3d, files, command):
    path = files / "annotations" / "scanqa_val.json"
    records = json.loads(path.read_text())
    records[1]["prompt"] = LONG
    path.write_text(json.dumps(records))
    which = ["--llm", files] if command == ["bench"] else ["-c", files / "fast3d.yaml"]
    done = fast3d(*command, *which, check=False)
    line = done.stderr.splitlines()[-1]
    assert (
        done.returncode == 1
        and "scanqa_val.json: record 1 is not a question (prompt: a text has 1200000 characters" in line
    )


def test_answers_that_no_llm_reads(fast3d, files):
    path = files / "annotations" / "scanqa_train.json"
    records = json.loads(path.read_text())
    records[2]["caption"] = LONG
    path.write_text(json.dumps(records))
    done = fast3d("extract", "--split", "train", "-c", files / "fast3d.yaml", check=False)
    assert done.returncode == 1 and "scanqa_train.json: record 2 is not a question" in done.stderr


def test_ask_reads_no_more_of_a_line_than_it_answers(fast3d, monkeypatch):
    fits = "chair " * (MOST_CHARACTERS // 6)
    session = ["ask", "-i", "--scene", SCENE, "-m", "vanilla", "--json"]
    for last in ("\n", ""):
        lines = f"{LONG}\n\nwhat is it?\n{fits}\n{LONG}{last}"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        told = [json.loads(line) for line in fast3d(*session).stdout.splitlines()]
        errors = [one.get("error", "") for one in told]
        assert errors[0] == errors[3] == "the question has more than 50000 characters, which no LLM here reads"
        assert errors[1] == "" and errors[2].startswith("the question takes 8440 tokens") and len(errors) == 4
        assert max(len(one["question"]) for one in told) <= MOST_CHARACTERS + 2
    done = fast3d("ask", LONG, "--scene", SCENE, "-m", "vanilla", check=False)
    assert done.returncode == 2 and "more than 50000 characters" in done.stderr and "loading" not in done.stderr
