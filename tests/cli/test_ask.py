"""`fast3d ask`: what it prints, a session of several questions, and everything that goes wrong."""

import io
import json
import sys

import pytest
import torch

from fast3d_core import Asker, load_config
from fast3d_core.asking.reply import Reply
from fast3d_core.pruning import Sap
from tests.conftest import MINIATURE

SCENES = ["scene0011_00", "scene0015_00", "scene0025_00"]
SCENE = SCENES[0]
SAP = ["--scene", SCENE, "--alpha", "0.5"]
QUESTION = "What color is the couch next to the tv?"


@pytest.fixture(scope="module")
def want():
    return Asker(load_config(MINIATURE)).ask(QUESTION, SCENE, Sap(0.5))


@pytest.fixture
def typed(monkeypatch):
    """Puts bytes on stdin."""

    def put(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


def test_an_answer(fast3d, want):
    done = fast3d("ask", QUESTION, *SAP)
    lines = done.stdout.splitlines()
    assert lines[0] == want.text
    assert f"kept {len(want.kept)}: {want.kept[0]}" in done.stdout
    assert f"{300 - want.kept_tokens} of 300 visual tokens from layer 0 of 4 on, {want.pruned:.1f}%" in done.stdout
    assert all(f"{stage} 0." in lines[-1] for stage in ("gap", "prefill", "decode"))
    assert f"{SCENE}: {want.prompt}" in done.stderr


def test_json(fast3d, want):
    found = json.loads(fast3d("ask", QUESTION, *SAP, "--json").stdout)
    plain = json.loads(json.dumps(want.to_dict()))
    assert {**found, "seconds": {}} == {**plain, "seconds": {}}
    assert set(found) == set(Reply.__dataclass_fields__)


def test_side_by_side(fast3d, want):
    done = fast3d("ask", QUESTION, *SAP, "--compare", "--ratio", "70", "--json")
    found = json.loads(done.stdout)
    assert [one["method"].split("-")[0] for one in found] == ["vanilla", "random", "fastv", "gap", "sap"]
    assert found[-1]["text"] == want.text
    done = fast3d("ask", QUESTION, *SAP, "-m", "sap", "-m", "vanilla")
    words = " ".join(done.stdout.split())
    assert "sap-alpha0.5" in words and "vanilla" in words and f"{want.pruned:.1f}%" in words and "0.0%" in words


def test_the_alpha_that_was_found(fast3d, tmp_path):
    fast3d("predict", "--maps", tmp_path / "maps")
    fast3d("search-alpha", "--target", "90", "--maps", tmp_path / "maps")
    alpha = json.loads((tmp_path / "runs" / "alpha.json").read_text())["alpha"]
    done = fast3d("ask", QUESTION, "--scene", SCENE, "--json")
    assert json.loads(done.stdout)["method"] == f"sap-alpha{alpha}" and "as found by" in done.stderr
    fast3d("search-alpha", "--target", "90", "--maps", tmp_path / "maps", "--per-dataset", "--tolerance", "10")
    assert json.loads(fast3d("ask", QUESTION, "--scene", SCENE, "--json").stdout)["method"] == "sap-per-dataset"
    done = fast3d("ask", QUESTION, "--scene", SCENE, "--task", "plain", check=False)
    assert done.returncode == 2 and "is one for each dataset; give --alpha" in done.stderr


def test_scenes(fast3d):
    done = fast3d("ask", "--scene", "list")
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == SCENES
    assert "scene0015_00 (87 objects): 0 " in done.stdout and "39 " in done.stdout and " 40 " in done.stdout
    listed = json.loads(fast3d("ask", "--scene", "list", "--json").stdout)
    assert len(listed["scene0015_00"]) == 87 and set(listed["scene0015_00"][0]) == {"slot", "label", "centre", "size"}


def test_a_session(fast3d, typed, want):
    """One bad line is one error; scene and methods change on the way; budgets wait for the method that takes them."""
    lines = [QUESTION, "", "what is <OBJ999>?", "caf\udce9", "/scene scene0015_00", QUESTION, "/method gap vanilla"]
    lines += [QUESTION, "/scene nowhere", "/method gapp", "/what", "/scene list", "/quit", "never read"]
    typed("\n".join(lines).encode(errors="surrogateescape"))
    done = fast3d("ask", "--interactive", *SAP, "--ratio", "70", "--json")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    first, *bad, second, third, no_scene, no_method, no_command, scenes = documents
    assert first["text"] == want.text and first["scene"] == SCENE
    assert done.stdout.isascii()
    assert ["no object <OBJ999>" in bad[0]["error"], "not valid UTF-8" in bad[1]["error"]] == [True, True]
    assert second["scene"] == "scene0015_00"
    assert [one["method"].split("-")[0] for one in third] == ["gap", "vanilla"]
    assert "nearest" in no_scene["error"] and "no method" in no_method["error"] and "/scene" in no_command["error"]
    assert list(scenes) == SCENES
    assert done.stderr.count("error:") == 5 and done.stderr.count("loading the model") == 1


def test_a_session_for_people(fast3d, typed, want):
    typed(f"{QUESTION}\n/scene list".encode())
    done = fast3d("ask", "What color is the bed?", *SAP, "--interactive", "--reuse-scene")
    assert done.stdout.count("  took  ") == 2 and "scene0015_00 (87 objects)" in done.stdout
    assert "not the published computation" in done.stderr


def test_a_page(fast3d, typed, tmp_path, monkeypatch):
    """A terminal with a screen opens it once; a session's next question replaces it."""
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    done = fast3d("ask", QUESTION, *SAP, "-m", "vanilla", "-m", "sap", "--html", "see/it.html")
    page = tmp_path / "see" / "it.html"
    assert QUESTION in page.read_text() and f"open it in a browser: {page.as_uri()}" in done.stderr and not opened
    monkeypatch.setattr("fast3d_cli.console.out._force_terminal", True)
    typed(b"what?\nwhere is it?\n")
    fast3d("ask", "-i", *SAP, "--html", page)
    assert "where is it?" in page.read_text() and QUESTION not in page.read_text()
    assert opened == [page.as_uri()]
    monkeypatch.setenv("SSH_CONNECTION", "1")
    fast3d("ask", QUESTION, *SAP, "--html", page)
    assert len(opened) == 1
    done = fast3d("ask", QUESTION, *SAP, "--html", tmp_path, check=False)
    assert done.returncode == 2 and "names no file" in done.stderr
    (tmp_path / "file").touch()
    typed(b"what?\n")
    done = fast3d("ask", "how?", "-i", "--json", *SAP, "--html", tmp_path / "file" / "x.html", check=False)
    assert "--html: " in done.stderr and "cannot be written" in done.stderr
    assert [json.loads(line)["question"] for line in done.stdout.splitlines()] == ["how?", "what?"]


def test_a_session_without_stdin(fast3d, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    done = fast3d("ask", "-i", *SAP, check=False)
    assert done.returncode == 2 and "stdin, which is closed" in done.stderr


def test_what_comes_from_outside_is_no_markup(fast3d, files):
    """Labels and questions with markup, HTML and control characters are shown as they are, or as escapes."""
    path = files / "annotations" / "scannet_mask3d_val_attributes.pt"
    content = torch.load(path, weights_only=True)
    content[SCENE]["objects"] = ["[red]bed[/red]<b>\x1b[2J\u202e\n"] * 100
    torch.save(content, path)
    config = ["-c", files / "fast3d.yaml"]
    for arguments in (
        ["[/bold]<i>what\x1b[2J?\x07\r", *SAP],
        ["--scene", "list"],
        ["x", *SAP, "-m", "vanilla", "-m", "sap"],
    ):
        done = fast3d("ask", *arguments, *config)
        shown = "".join(done.stdout.split())  # a table breaks lines anywhere
        assert "[red]bed[/red]<b>\\x1b[2J\\u202e\\n" in shown
        assert not set("\x1b\x07\r\u202e") & set(done.stdout + done.stderr)
    done = fast3d("ask", "[/bold]<i>what\x1b[2J?", *SAP, *config)
    assert f"{SCENE}: [/bold]<i>what\\x1b[2J? Answer" in done.stderr
    done = fast3d("ask", "x", "--scene", "[/red]\x1b[2J", *config, check=False)
    assert done.returncode == 2 and "no scene '[/red]\\x1b[2J'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["what?"], "name a scene with --scene"),
        (["--scene", "list", "--html", "x.html"], "--html shows a question about a scene"),
        (["--scene", SCENE], "ask something, such as"),
        (["", *SAP], "the question is empty"),
        (["what?", "--scene", "scene0011_0", "--alpha", "0.5"], "the nearest are scene0011_00"),
        (["what?", "--scene", SCENE], "sap needs --alpha"),
        (["what?", *SAP, "--preset", "90"], "--preset means nothing to sap"),
        (["what?", *SAP, "--compare"], "random needs a budget"),
        (["what?", *SAP, "--compare", "-m", "sap"], "--compare takes all methods"),
        (["what?", *SAP, "-m", "gapp"], "there is no method 'gapp'"),
        (["what?", *SAP, "--task", "quiz"], "--task is one of qa, ground"),
        (["what? " * 2000, *SAP], "the LLM reads"),
    ],
)
def test_what_cannot_be_meant(fast3d, arguments, message):
    done = fast3d("ask", *arguments, check=False)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) <= 3


def test_a_session_without_gap(fast3d, files, typed):
    """What cannot be loaded leaves the method as it was."""
    (files / "gap" / "checkpoint_spatial.pth").unlink()
    typed(f"/method sap\n{QUESTION}\n".encode())
    arguments = ["-i", *SAP, "-m", "vanilla", "--json", "-c", files / "fast3d.yaml"]
    missing, reply = map(json.loads, fast3d("ask", *arguments).stdout.splitlines())
    assert "--method vanilla" in missing["error"] and reply["method"] == "vanilla"


def test_no_gap_network(fast3d, files):
    (files / "gap" / "checkpoint_spatial.pth").unlink()
    done = fast3d("ask", "what?", *SAP, "-c", files / "fast3d.yaml", check=False)
    assert done.returncode == 1 and "--method vanilla" in done.stderr and "loading" not in done.stderr
