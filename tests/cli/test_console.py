"""What a file or a name says reaches the terminal as plain characters, whatever stdout can hold."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from fast3d_cli.console import error, note, out, print_json, print_text
from fast3d_core.text import csv_cell, printable
from tests.conftest import MINIATURE

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
EVIL = "\x1b]0;title\x07\x1b[2J[red]x[/red] [/] :smile: \u202e|=1"
SHORT = ["--dataset", "scanqa", "--limit", "1", "--no-meteor", "--set", "generation.max_new_tokens=2"]


def test_no_terminal_takes_orders_from_a_file(capfd):
    for tell in (error, note):
        tell("scene \x1b[31mred\x07\r\x9b2J [bold]name[/] \u202e\ud800")
        line = capfd.readouterr().err.strip()
        assert line.isprintable() and "[bold]name[/]" in line and "[31mred" in line, line


def test_whatever_is_printed_is_text(capfd):
    table = Table("a [/] \x1b", title=EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    for thing in (EVIL, Text(EVIL), table):
        out.print(thing)
    print_text(Path(EVIL))
    printed = capfd.readouterr().out
    assert printed.replace("\n", "").isprintable() and "[red]x[/red]" in printed and ":smile:" in printed


def test_cells_are_no_formulas():
    assert [csv_cell(text) for text in ("=1+1", "+x", "-x", "@x", "a=b", "\t=x", "a\nb")] == [
        "'=1+1", "'+x", "'-x", "'@x", "a=b", "'\\t=x", "a\\nb",
    ]  # fmt: skip
    assert printable("東京 é") == "東京 é" and printable("a\udcff\x1b") == "a\\udcff\\x1b"


@pytest.fixture
def stranger(fast3d, tmp_path):
    """A run folder whose texts are a stranger's."""
    fast3d("eval", "-m", "vanilla", *SHORT)
    path = tmp_path / "runs" / "vanilla" / "result.json"
    content = json.loads(path.read_text())
    content |= {"method": EVIL, "name": f"={EVIL}", "notes": [EVIL, "a\nb"]}
    path.write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_a_strangers_result_is_shown_as_text(fast3d, stranger, form):
    done = fast3d("report", "--resamples", "100", "--format", form)
    for stream in (done.stdout, done.stderr):
        assert stream.replace("\n", "").isprintable()
    assert "title" in done.stdout and "x[/red" in done.stdout.replace("\\\\", "\\").replace("\\[", "[")
    if form == "csv":
        (row,) = csv.DictReader(io.StringIO(done.stdout))
        assert row["name"].startswith("'=") and row["method"] == printable(EVIL)


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "\x1b[2J", "=1|2"])
def test_commands_work_in_a_folder_of_any_name(fast3d, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(MINIATURE.parent, folder)
    config = ["-c", folder / "fast3d.yaml"]
    shown = printable(name)
    for command in (
        ["eval", "-m", "vanilla", *SHORT, *config],
        ["report", "--resamples", "100", *config],
        ["convert", "--dry-run", *config],
        ["convert", "gap", "--to", folder / "made", *config],
        ["predict", "--dataset", "scanqa", "--maps", folder / "maps", *config],
        ["search-alpha", "--dataset", "scanqa", *config],
        ["download", "--dry-run", "gap", "--to", folder / "new"],
        ["doctor", "-m", "vanilla", *config],
        ["score", folder / "runs" / "vanilla" / "predictions", "--no-meteor", "--dataset", "scanqa", *config],
        ["extract", "--dataset", "scanqa", "--limit", "1", "--split", "val", "--targets", folder / "store", *config],
        ["ask", "what?", "--scene", "scene0015_00", "-m", "vanilla", *config],
    ):
        done = fast3d(*command, check=False)
        assert done.returncode in (0, 1) and "error:" not in done.stderr, done.stderr
        assert all(stream.replace("\n", "").isprintable() for stream in (done.stdout, done.stderr))
        if command[0] in ("convert", "download"):
            assert shown in "".join((done.stdout + done.stderr).split("\n")) or "there" in done.stdout
        done = fast3d(*command, "--json", check=False)
        assert done.returncode in (0, 1) and json.loads(done.stdout) is not None, done.stderr
    done = fast3d("eval", "-m", "vanilla", "-c", folder / "none.yaml", check=False)
    assert done.returncode == 1 and shown in done.stderr


def test_a_name_that_is_not_utf8_is_shown_and_refused_only_where_it_cannot_be_opened(fast3d, tmp_path):
    """torch, safetensors and sentencepiece take paths in UTF-8."""
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    shutil.copytree(MINIATURE.parent, folder)
    config = ["-c", folder / "fast3d.yaml"]
    fast3d("eval", "-m", "vanilla", *SHORT, "--set", "runs=runs")
    (tmp_path / "runs").rename(folder / "runs")
    for command in (
        ["report", "--resamples", "100", *config],
        ["convert", "--dry-run", *config],
        ["download", "--dry-run", "gap", "--to", folder / "new"],
        ["score", folder / "runs" / "vanilla" / "predictions", "--no-meteor", "--dataset", "scanqa"],
    ):
        done = fast3d(*command)
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()
        assert json.loads(fast3d(*command, "--json").stdout) is not None
    assert "\\udcff\\udcfe" in fast3d("convert", "--dry-run", *config).stdout.replace("\n", "")
    for command in (
        ["eval", "-m", "vanilla", "--restart", *SHORT],
        ["predict", "--restart"],
        ["convert"],
    ):
        done = fast3d(*command, *config, check=False)
        assert done.returncode == 1 and "is not UTF-8, by which" in done.stderr, done.stderr
    done = fast3d("doctor", *config, check=False)
    assert done.returncode == 1 and "not UTF-8" in " ".join(done.stdout.split())


def process(tmp_path, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fast3d_cli", *map(str, arguments)], cwd=tmp_path, stdout=stdout, stderr=stderr,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}, timeout=300,
    )  # fmt: skip


NARROW = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]


@pytest.mark.parametrize("environment", NARROW, ids=["ascii", "C"])
def test_a_stream_that_cannot_hold_all_gets_escapes(tmp_path, environment):
    question = "wo ist der Stuhl? 東京"
    arguments = ["ask", question, "--scene", "scene0015_00", "-m", "vanilla"]
    done = process(tmp_path, *arguments, "--json", **environment)
    if "LC_ALL" in environment:  # in which arguments are no UTF-8
        assert done.stderr.endswith(b"error: the question is not valid UTF-8 text\n")
    else:
        assert done.returncode == 0 and question in json.loads(done.stdout)["prompt"], done.stderr
        done = process(tmp_path, *arguments, **environment)
        assert done.returncode == 0 and b"Stuhl? \\u6771" in done.stderr and b"Traceback" not in done.stderr
    done = process(tmp_path, "doctor", "-m", "vanilla", **environment)
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr and done.stdout.isascii()


def test_json_is_unicode_where_that_can_be_written(capfd):
    print_json({"a": "東京"})
    assert capfd.readouterr().out == '{\n "a": "東京"\n}\n'
    print_json({"a": os.fsdecode(b"\xff")})  # a name that no encoding holds
    assert json.loads(capfd.readouterr().out) == {"a": os.fsdecode(b"\xff")}


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["report", "--resamples", "100"], ["doctor", "--json"], ["--version"], ["--help"]]
)
def test_a_full_stdout_is_called_so(stranger, arguments):
    with FULL.open("w") as full:
        done = process(stranger, *arguments, stdout=full)
    (line,) = [line for line in done.stderr.decode().splitlines() if "rror" in line]
    assert done.returncode == 1 and line.startswith("error: stdout cannot be written (No space left")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_full_stderr_stops_nothing(stranger):
    with FULL.open("w") as full:
        done = process(stranger, "report", "--resamples", "100", stderr=full)
        assert done.returncode == 0 and b"title" in done.stdout
        assert process(stranger, "report", "nothing", stderr=full).returncode == 2


def test_a_reader_that_leaves_is_no_error(stranger):
    for arguments in (["report", "--format", "csv"], ["report"], ["doctor", "--json"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = process(stranger, *arguments, stdout=writing)
        os.close(writing)
        assert done.returncode == 1
        assert not any(word in done.stderr for word in (b"rror", b"Traceback", b"ignored")), done.stderr


def test_a_pipe_is_no_config(fast3d, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for command in (["report"], ["doctor"], ["convert"], ["search-alpha"]):
        done = fast3d(*command, "--config", tmp_path / "pipe", check=False)
        assert done.returncode == 1 and "is no file" in " ".join((done.stdout + done.stderr).split())
    done = fast3d("report", "--config", "/dev/zero", check=False)
    assert done.returncode == 1 and "is no file" in done.stderr
    done = fast3d("report", "--html", tmp_path / "pipe", check=False)
    assert done.returncode == 2 and (tmp_path / "pipe").is_fifo()


def test_a_loop_of_links_and_a_link_to_nothing_are_called_so(fast3d, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    assert "cannot be read (Too many" in fast3d("report", "--config", "loop", check=False).stderr
    assert "is a link to what is gone" in fast3d("report", "--config", "gone", check=False).stderr
