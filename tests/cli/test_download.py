"""`fast3d download`: tables, licences, exit codes; the demo."""

import json
import os
import subprocess
import sys

import pytest

from fast3d_core.demo import demo_folder
from fast3d_core.download import ITEMS
from tests.conftest import MINIATURE
from tests.download.conftest import drive, hub, served  # noqa: F401 (fixtures)
from tests.download.test_drive import long
from tests.download.test_hub import vicuna  # noqa: F401 (a fixture)

# ruff: noqa: F811

RELEASED = MINIATURE.parent


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Accepted licences are remembered here; the miniature stands in for the demo."""
    monkeypatch.setattr("fast3d_core.files.cache.CACHE", tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "demo").symlink_to(RELEASED)


def test_the_demo(fast3d, tmp_path):
    assert fast3d("download", "demo").stdout.strip() == str(demo_folder())
    assert json.loads(fast3d("download", "demo", "--json").stdout) == {"demo": str(demo_folder())}
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for place in ("there", "empty", "link", "."):
        done = fast3d("download", "demo", "--to", place, check=False)
        assert done.returncode == 2 and "name a new folder" in done.stderr


def test_the_demo_in_a_new_folder(fast3d, tmp_path, monkeypatch):
    monkeypatch.setattr("fast3d_core.demo.release.write_demo", lambda folder: folder.mkdir())
    assert fast3d("download", "demo", "--to", "a/new").stdout.strip() == str(tmp_path / "a" / "new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    (tmp_path / "a" / "new" / "fast3d.yaml").touch()  # the whole demo: of a command that was killed at its end, say
    assert fast3d("download", "demo", "--to", "a/new").stdout.strip() == str(tmp_path / "a" / "new")
    for more in (["vicuna"], ["--dry-run"], ["--revision", "main"]):
        done = fast3d("download", "demo", *more, check=False)
        assert done.returncode == 2 and "the demo is" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vicuna-13b"], "choose from demo, vicuna"),
        (["gap", "--revision", "x"], "name one of vicuna"),
        (["gap", "--to", "file"], "is a file"),
    ],
)
def test_what_cannot_be_meant(fast3d, tmp_path, arguments, said):
    (tmp_path / "file").touch()
    done = fast3d("download", *arguments, "--accept-licences", check=False)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


def test_dry_run(fast3d, vicuna, tmp_path):
    done = fast3d("download", "all", "--dry-run", "--to", "to")
    # Cells break where the terminal is narrow, which depends on where the tests run; names do not.
    assert all(name in done.stdout for name in ITEMS)
    together = "".join(done.stdout.split())
    for words in ("lmsys/", "302.0", "LLaMA", "ScanNet"):
        assert words in together
    assert "roberta: Hugging Face FacebookAI/roberta-base: not found" in done.stderr
    assert not (tmp_path / "to").exists()
    assert fast3d("download", "--to", "to").stdout == done.stdout  # without WHAT
    listed = json.loads(fast3d("download", "vicuna", "gap", "--dry-run", "--json").stdout)
    assert list(listed) == ["vicuna", "gap"]
    assert listed["vicuna"]["bytes"] == 302_004 and listed["gap"]["bytes"] is None
    assert listed["vicuna"]["to"] == str(tmp_path / "llm/vicuna-7b-v1.5") and listed["gap"]["there"] == "no"


def test_licences_are_accepted_once(fast3d, vicuna, tmp_path):
    done = fast3d("download", "vicuna", check=False)
    assert done.returncode == 2 and "LLaMA 2 licence" in done.stderr and "--accept-licences" in done.stderr
    assert not (tmp_path / "llm").exists() and not vicuna.asked
    done = fast3d("download", "vicuna", "--accept-licences")
    assert done.stdout == f"{tmp_path / 'llm/vicuna-7b-v1.5'}\n" and "LLaMA 2 licence" in done.stderr
    done = fast3d("download", "vicuna")
    assert "LLaMA 2" not in done.stderr and "vicuna: there" in done.stderr
    assert fast3d("download", "gap", check=False).returncode == 2  # others
    (tmp_path / "cache/licences.json").write_text("[")
    assert fast3d("download", "vicuna", check=False).returncode == 2


@pytest.mark.parametrize("answer", [True, False])
def test_licences_are_asked_for(fast3d, vicuna, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer)
    assert fast3d("download", "vicuna", check=False).returncode == (0 if answer else 2)


def test_one_that_fails(fast3d, vicuna, tmp_path):
    done = fast3d("download", "vicuna", "roberta", "--accept-licences", check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "roberta: Hugging Face FacebookAI/roberta-base: not found (HTTP 404)" in line
    assert done.stdout == f"{tmp_path / 'llm/vicuna-7b-v1.5'}\n"
    told = json.loads(fast3d("download", "vicuna", "roberta", "--json", check=False).stdout)
    assert told["vicuna"]["state"] == "there" and told["roberta"]["state"] == "failed" and told["roberta"]["problem"]


def test_from_nothing_to_eval(fast3d, hub, drive, tmp_path):
    """The miniature as it would be released: everything is downloaded, and the next commands just work."""
    files = {path.relative_to(RELEASED).as_posix(): path.read_bytes() for path in RELEASED.rglob("*") if path.is_file()}

    def under(prefix, to=""):
        return {to + name.removeprefix(prefix): data for name, data in files.items() if name.startswith(prefix)}

    hub.repos |= {
        "models/lmsys/vicuna-7b-v1.5": under("llm/"),
        "models/FacebookAI/roberta-base": under("gap/roberta_tiny/"),
        "datasets/ZzZZCHS/Chat-Scene": {
            **under("annotations/", "annotations/"),
            "pretrained/ckpt_01_3446.pth": files["ckpt_01_3446.pth"],
        },
    }
    folders = {"infer_attn_maps": "targets", "pred_attn_maps": "predicted", "trained_gap_network": "network"}
    published = {
        "targets": under("outputs/infer_attn_maps/"),
        "predicted": under("outputs/pred_attn_maps/"),
        "network": {"checkpoint_best.pth": files["gap/checkpoint_spatial.pth"]},
    }
    drive.drive |= {
        ITEMS["gap"].sources[0].id: [(name, long(short)) for name, short in folders.items()],
    }
    for short, content in published.items():
        drive.drive[long(short)] = [(name, long(f"{short}{n}")) for n, name in enumerate(content)]
        drive.drive |= {long(f"{short}{n}"): item for n, item in enumerate(content.items())}
    (tmp_path / "fast3d.yaml").write_text("# mine\nmodel:\n  dtype: float32\ngeneration:\n  max_new_tokens: 4\n")
    done = fast3d("download", "all", "--accept-licences")
    assert len(done.stdout.splitlines()) == len(ITEMS)
    text = (tmp_path / "fast3d.yaml").read_text()
    assert text.startswith("# mine\nmodel:\n") and "max_new_tokens: 4" in text
    fast3d("eval", "--method", "sap", "--alpha", "0.5", "--limit", "1", "--no-meteor")
    fast3d(
        "eval", "--method", "sap", "--alpha", "0.5", "--gap", "live", "--limit", "1", "--no-meteor", "--name", "live"
    )
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {"live"}


def test_mirror_and_token_of_the_environment(vicuna, tmp_path):
    """A process of its own, as its variables are read when it starts."""
    settings = {"HF_ENDPOINT": vicuna.url, "HF_TOKEN": "hf_mine", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "fast3d_cli", "download", "vicuna", "--accept-licences"]
    environment = os.environ | settings | {"FAST3D_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {asked["token"] for asked in vicuna.asked} == {"Bearer hf_mine"}
    assert done.stdout == f"{tmp_path / 'llm/vicuna-7b-v1.5'}\n"
