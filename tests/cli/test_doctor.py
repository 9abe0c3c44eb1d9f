"""`fast3d doctor`: table, JSON and exit codes; and what `fast3d eval` says of the same troubles."""

import io
import json

import pytest
from rich.console import Console

from tests.doctor.conftest import edit_json, unseen, wrap  # noqa: F401 (a fixture)
from tests.doctor.test_troubles import TROUBLES

FAST = ["--no-meteor", "--set", "generation.max_new_tokens=2", "--set", "generation.beams=1"]


@pytest.fixture
def files(files):
    """With a Scan2Cap corpus as the released one is."""
    edit_json(files / "annotations" / "scan2cap_val_corpus.json", wrap)
    return files


def words(done):
    """The table's text, whatever the width it was wrapped to."""
    return " ".join(done.stdout.split())


def test_the_embedded_demo_is_well(fast3d):
    done = fast3d("doctor")
    assert "the embedded demo" in words(done) and "error" not in done.stdout and "warning" not in done.stdout
    assert done.stderr.splitlines()[-1] == "all is well"
    assert "reading the features of all scenes" in done.stderr


def test_json(fast3d, files):
    (files / "llm" / "tokenizer.model").unlink()
    done = fast3d("doctor", "-c", files / "fast3d.yaml", "--method", "vanilla", "--json", check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (1, False)
    assert found["findings"][0] == {"area": "versions", "status": "ok", "what": found["findings"][0]["what"], "do": ""}
    (error,) = [one for one in found["findings"] if one["status"] == "error"]
    assert error["area"] == "model.llm" and "tokenizer.model does not exist" in error["what"] and error["do"]
    assert done.stderr.splitlines()[-1] == "1 error, 1 warning"


def test_the_table_says_what_to_do(fast3d, files):
    (files / "ckpt_01_3446.pth").write_text("<html>")
    done = fast3d("doctor", "-c", files / "fast3d.yaml", "--method", "vanilla", check=False)
    text = words(done)
    assert done.returncode == 1
    assert "model.checkpoint error" in text and "is a web page" in text and "-> `fast3d download chat-scene`" in text


def test_a_warning_is_no_failure(fast3d, files):
    (files / "annotations" / "scanrefer_unique_multiple_lookup.json").unlink()
    done = fast3d("doctor", "-c", files / "fast3d.yaml", "--method", "vanilla")
    assert done.stderr.splitlines()[-1] == "1 warning"


def test_a_config_that_is_none(fast3d, tmp_path):
    done = fast3d("doctor", "--set", "model.llms=x", check=False)
    assert done.returncode == 1 and "unknown key" in words(done)
    done = fast3d("doctor", "-c", tmp_path / "none.yaml", check=False)
    assert done.returncode == 1 and "does not exist" in words(done)


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--gap", "dead"], "--gap is files or live"), (["-m", "gapp"], "there is no method")]
)
def test_what_cannot_be_meant(fast3d, arguments, message):
    done = fast3d("doctor", *arguments, check=False)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""


def test_on_a_terminal_the_last_line_tells(fast3d, monkeypatch):
    shown = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr("fast3d_cli.commands.doctor.err", shown)
    assert "reading" not in fast3d("doctor", "--method", "vanilla", "--deep").stderr
    assert "reading the numbers of the checkpoint" in shown.file.getvalue()


STOP = [
    ("llm-truncated", "vanilla"), ("tokenizer-size", "vanilla"), ("checkpoint-page", "vanilla"),
    ("checkpoint-objects", "vanilla"), ("questions-scene", "vanilla"), ("features-width", "vanilla"),
    ("boxes-scene", "vanilla"), ("corpus-key", "vanilla"), ("lookup-object", "vanilla"), ("maps-fewer", "gap"),
    ("maps-questions", "gap"),
]  # fmt: skip
FALSIFY = [
    ("tokenizer-bos", "vanilla"), ("checkpoint-llm", "vanilla"), ("questions-object", "vanilla"),
    ("features-zero", "vanilla"), ("features-same", "vanilla"), ("boxes-fewer", "vanilla"), ("maps-same", "gap"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method"), [*STOP, *FALSIFY])
def test_eval_stops_or_does_not_notice(fast3d, files, name, method):
    """What doctor calls an error either stops `eval`, perhaps after hours, or passes unnoticed into its numbers."""
    TROUBLES[name][0](files)
    budget = [] if method == "vanilla" else ["--layer", 2, "--keep", 15]
    config = ["-c", files / "fast3d.yaml", "-m", method]
    assert fast3d("doctor", *config, check=False).returncode == 1
    done = fast3d("eval", *config, *budget, *FAST, check=False)
    assert done.returncode == (0 if (name, method) in FALSIFY else 1), done.stderr


def test_an_earlier_run_with_other_files(fast3d, files):
    config = ["-c", files / "fast3d.yaml", "-m", "vanilla"]
    fast3d("eval", *config, *FAST)
    assert "all is well" in fast3d("doctor", *config, *FAST[1:]).stderr
    done = fast3d("doctor", *config, check=False)
    assert done.returncode == 1 and "vanilla was made with other settings or files: generation" in words(done)
    assert fast3d("eval", *config, "--no-meteor", check=False).returncode == 2
