"""`fast3d report`: data on stdout, remarks on stderr, nothing cut at any width."""

import csv
import io
import json
import re

import pytest
import typer
from typer.testing import CliRunner

from fast3d_cli.commands.report import report
from fast3d_cli.console import out
from fast3d_core.benchmarks import DATASETS
from fast3d_core.errors import DataError, Fast3DError, UsageError
from tests.report.fabricate import bernoulli, make_run

app = typer.Typer()
app.command()(report)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with five complete runs and an incomplete one under runs/, and a config."""
    runs = tmp_path / "runs"
    for seed, (name, method, mean, ratio) in enumerate(
        [
            ("vanilla", "vanilla", 0.5, 0),
            ("random-K2-keep15-seed0", "random", 0.2, 89.0625),
            ("fastv-K2-keep15", "fastv", 0.04, 89.0625),
            ("a_run_with_a_long_name_and_no_hyphens", "gap", 0.5, 89.0625),
        ]
    ):
        hits = {d: bernoulli(mean, 120, 10 * seed + i) for i, d in enumerate(DATASETS)}
        make_run(runs, name, method, hits, ratio=ratio, flops=7.2e12 - 6e10 * ratio)
    make_run(runs, "theirs", None, {d: bernoulli(0.45, 120, i) for i, d in enumerate(DATASETS)})
    (runs / "killed").mkdir()
    (tmp_path / "fast3d.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*args):
    result = CliRunner().invoke(app, ["--resamples", "200", *map(str, args)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_tables_cut_nothing_and_fit(folder, monkeypatch, width):
    monkeypatch.setattr(out, "width", width)
    text = call("--published").stdout
    numbers = json.loads(call("--json", "--published").stdout)
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, 80) and "…" not in text
    for row in numbers["rows"]:
        for score in row["scores"].values():
            assert re.search(rf"(?<![\d.]){score['value']:.2f}(?![\d.])", text)
            if score["low"] is not None and score["low"] >= 10:
                assert f"{score['low']:.1f}-{score['high']:.1f}" in text
        for difference in row["differences"].values():
            assert f"{difference['value']:+.2f}" in text or row["name"] == "vanilla"
    assert "theirs" in text and "undecided" in text
    tables = 2 if width == 140 else 3  # costs stand apart where they do not fit
    assert len([line for line in lines if set(line.strip()) == {"─"}]) == tables
    if width >= 80:
        assert text.count("(published)") == 8 * (tables - 1)


def test_long_names_are_broken_behind_hyphens_and_stay_whole(folder, monkeypatch):
    monkeypatch.setattr(out, "width", 80)
    table = call().stdout.split("\n\n")[0].splitlines()
    start = next(i for i, line in enumerate(table) if line.startswith("random-"))
    first = [line.split("  ")[0].strip() for line in table[start : start + 3]]
    assert "".join(first).startswith("random-K2-keep15-seed0")
    start = next(i for i, line in enumerate(table) if line.startswith("a_run"))
    first = [line.split("  ")[0].strip() for line in table[start : start + 5]]
    assert "".join(first).startswith("a_run_with_a_long_name_and_no_hyphens(gap)")


def test_stdout_holds_the_data_only(folder):
    result = call("--format", "json")
    assert [row["name"] for row in json.loads(result.stdout)["rows"]] == [
        "vanilla",
        "random-K2-keep15-seed0",
        "fastv-K2-keep15",
        "a_run_with_a_long_name_and_no_hyphens",
        "theirs",
    ]
    assert "killed is not complete" in result.stderr and "same `fast3d eval` command" in result.stderr
    assert call("--json").stdout == result.stdout
    lines = list(csv.DictReader(io.StringIO(call("--format", "csv").stdout)))
    assert len(lines) == 5 and float(lines[0]["scanrefer"]) == 50
    assert call("--format", "markdown").stdout.startswith("| Run | ScanRefer Acc@0.5 n=120 |")


def test_runs_are_chosen_by_name_and_path_and_compared_with_a_named_one(folder):
    result = call("theirs", folder / "runs" / "fastv-K2-keep15", "--json")
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows["rows"]] == ["fastv-K2-keep15", "theirs"]
    assert rows["vanilla"] is None and "no run is vanilla" in result.stderr and "killed" not in result.stderr
    rows = json.loads(call("theirs", "--vanilla", "vanilla", "--against", "fastv-K2-keep15", "--json").stdout)
    assert [row["name"] for row in rows["rows"]] == ["vanilla", "fastv-K2-keep15", "theirs"]
    assert (rows["vanilla"], rows["against"]) == ("vanilla", "fastv-K2-keep15")
    assert rows["rows"][2]["differences"]["sqa3d"]["verdict"] == "better"


@pytest.mark.parametrize(
    ("args", "kind", "text"),
    [
        (["fastv-K2-kep15"], UsageError, "did you mean fastv-K2-keep15?"),
        (["--vanilla", "vanila"], UsageError, "did you mean vanilla?"),
        (["--against", "killed"], DataError, "no complete run"),
        (["killed"], DataError, "no complete run"),
        (["--set", "runs=elsewhere"], DataError, "run `fast3d eval` first"),
        (["--json", "--format", "csv"], UsageError, "exclude each other"),
        (["--seed", "-1"], UsageError, "must not be negative"),
        (["--set", "rums=x"], UsageError, "runs"),
        (["--plot", "figure.jpg"], UsageError, "--plot writes .png or .svg"),
        (["--plot", "fast3d.yaml/figure.png"], DataError, "--plot: fast3d.yaml/figure.png cannot be written"),
        (["--html", "fast3d.yaml/page.html"], DataError, "--html: fast3d.yaml/page.html cannot be written"),
        (["--html", "runs"], UsageError, "--html 'runs' names no file"),
        (["--html", ""], UsageError, "names no file"),
        (["--scenes", "3"], UsageError, "--scenes means nothing without --html"),
        (["--html", "page.html", "--set", "runs=elsewhere"], DataError, "run `fast3d eval` first"),
        (["theirs", "--plot", "figure.svg"], DataError, "nothing to plot"),
    ],
)
def test_mistakes_are_one_line(folder, args, kind, text):
    with pytest.raises(Fast3DError) as caught:
        call(*args)
    assert type(caught.value) is kind and text in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_are_written_beside_the_table(folder):
    plain = call("--json")
    result = call("--json", "--html", "out/page.html", "--plot", "out/figure.svg")
    assert result.stdout == plain.stdout
    assert "written: out/page.html" in result.stderr and "written: out/figure.svg" in result.stderr
    # The runs have scores alone, and there are no annotations.
    assert "there is no scene browser: data.annotations" in result.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["figure.svg", "page.html"]


def test_the_page_of_real_runs(fast3d, tmp_path):
    """`fast3d eval`'s own folders, on the miniature."""
    fast3d("eval", "--method", "vanilla", "--limit", "2", "--no-meteor")
    fast3d("eval", "--method", "sap", "--alpha", "0.5", "--limit", "2", "--no-meteor")
    done = fast3d("report", "--resamples", "100", "--html", "page.html", "--scenes", "1")
    assert "holds 1 of 2 scenes" in done.stderr and "written: page.html (" in done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(re.findall(r'application/json">(.*?)</script>', text, re.DOTALL)[0])
    (scene,) = data["browser"]["scenes"]
    result = json.loads((tmp_path / "runs" / "sap-alpha0.5" / "result.json").read_text())
    assert [run["alpha"] for run in data["browser"]["runs"]] == [None, dict.fromkeys(DATASETS, 0.5)]
    for question in scene["questions"]:
        unpruned, pruned = question["answers"]
        assert unpruned["kept"] is None
        count = sum(total < 0.5 for total in question["mass"][:-1]) + 1
        assert sorted(question["order"][:count]) == pruned["kept"]
    kept = [n for one in data["kept"] for n, samples in enumerate(one["samples"]) for _ in range(samples)]
    assert sum(kept) / len(kept) == pytest.approx(result["pruning"]["kept_objects"]["mean"])


def test_no_value_is_ever_nan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast3d.yaml").write_text("{}")
    make_run(tmp_path / "runs", "vanilla", "vanilla", {dataset: [0.0, 0.0, 0.0] for dataset in DATASETS})
    make_run(tmp_path / "runs", "gap", "gap", {"scanrefer": [], "sqa3d": [0.0]})
    result = call("--json")
    json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
    assert result.stderr.count("score ratio is undefined") == 1
    for form in ("table", "markdown", "csv"):
        assert "nan" not in call("--format", form).stdout.replace("vanilla", "").lower()
