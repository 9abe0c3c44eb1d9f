"""Markdown, CSV and JSON: the same numbers, readable back, published rows marked."""

import csv
import io
import json
import re

import pytest

from fast3d_core.benchmarks import DATASETS
from fast3d_core.report import (
    Difference,
    ScoreEstimate,
    build_report,
    list_runs,
    load_runs,
    to_csv,
    to_json,
    to_markdown,
)
from fast3d_core.report.render import _estimate_lines, from_json, human
from tests.report.fabricate import bernoulli, make_run


@pytest.fixture
def report(tmp_path):
    """Vanilla, a pruned run over part of the datasets with an ugly name, foreign predictions, and the paper's rows."""
    make_run(tmp_path, "vanilla", "vanilla", {d: bernoulli(0.5, 50, i) for i, d in enumerate(DATASETS)})
    make_run(tmp_path, "a|b *<i>*", "gap", {"scanrefer": bernoulli(0.4, 50, 7), "sqa3d": []}, ratio=89.0625, flops=5e11)
    make_run(tmp_path, "theirs", None, {d: bernoulli(0.3, 40, i) for i, d in enumerate(DATASETS)})
    return build_report(load_runs(list_runs(tmp_path)[0]), published=True, resamples=200)


def test_json_is_read_back(report):
    assert from_json(to_json(report)) == report


def test_json_and_csv_hold_the_same_numbers(report):
    plain = json.loads(to_json(report), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    lines = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(lines) == len(plain["rows"]) == 11
    compared = 0

    def same(text: str, value: object) -> None:
        nonlocal compared
        compared += 1
        if value is None:
            assert text == ""
        elif isinstance(value, bool):
            assert text == str(value).lower()
        elif isinstance(value, (int, float)):
            assert float(text) == value
        else:
            assert text == value

    for line, row in zip(lines, plain["rows"], strict=True):
        expected = {key: row[key] for key in row if key not in ("scores", "ratio", "differences")}
        parts = {"ratio": row["ratio"]}
        parts |= {d: row["scores"].get(d, {}) for d in DATASETS}
        parts |= {f"{d}_difference": row["differences"].get(d, {}) for d in DATASETS}
        for name, part in parts.items():
            keys = ["value", "low", "high"] + (["n"] if name != "ratio" else [])
            keys += ["verdict"] if name.endswith("_difference") else []
            expected |= {name if key == "value" else f"{name}_{key}": part.get(key) for key in keys}
        assert set(line) == set(expected)
        for key, value in expected.items():
            same(line[key], value)
    assert compared == 11 * len(lines[0])


def test_json_is_the_report(report):
    plain = json.loads(to_json(report))
    assert list(plain) == [
        "columns", "vanilla", "against", "confidence", "resamples", "seed", "published", "rows", "notes"
    ]  # fmt: skip
    assert plain["columns"]["scan2cap"] == "Scan2Cap BLEU-4@0.5" and plain["published"] == "arXiv 2507.09334"
    assert plain["rows"][0]["scores"]["scanrefer"]["value"] == report.rows[0].scores["scanrefer"].value
    assert [row["published"] for row in plain["rows"]] == [False] * 3 + [True] * 8


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_github_tables(report):
    text = to_markdown(report)
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        widths = {len(cells(line)) for line in table}
        assert len(widths) == 1
        assert all(re.fullmatch(r"-+:?", cell) for cell in cells(table[1]))
    scores, differences = tables
    assert len(scores) == 2 + 11 and len(differences) == 2 + 2
    assert cells(scores[0])[1] == "ScanRefer Acc@0.5" and cells(scores[0])[6:] == [
        "Score ratio", "Pruned", "FLOPs per sample", "Samples/s"
    ]  # fmt: skip
    vanilla, pruned, theirs, paper = (cells(scores[i]) for i in (2, 3, 4, 5))
    assert vanilla[0] == "vanilla" and vanilla[1].startswith("50.00<br>") and vanilla[6] == "100.00"
    assert pruned[0] == r"a\|b \*\<i\>\* (gap)" and pruned[3] == pruned[5].removesuffix("<br>n=0") == "-"
    assert pruned[7:] == ["89.06%", "500 G<br>25.0%", "20.0"]
    assert theirs[0] == "theirs (scored)" and theirs[7:] == ["-", "-", "-"]
    assert paper[:2] == ["Chat-Scene (published)", "50.40"]
    assert "arXiv 2507.09334" in text and text.count("\n- ") == len(report.notes) > 1


def test_published_rows_say_so_in_csv_and_markdown(report):
    assert [line["published"] for line in csv.DictReader(io.StringIO(to_csv(report)))] == ["false"] * 3 + ["true"] * 8
    assert to_markdown(report).count("(published) |") == 8


@pytest.mark.parametrize(
    ("flops", "shown"),
    [(0, "0.00"), (12.3, "12.3"), (999.4, "999"), (999.6, "1.00 k"), (8.527e12, "8.53 T"), (None, "-")],
)
def test_flops_have_three_digits_and_a_unit(flops, shown):
    assert human(flops) == shown


@pytest.mark.parametrize(
    ("estimate", "lines"),
    [
        (ScoreEstimate(50.404, 49.12, 51.7, 9), ["50.40", "49.1-51.7"]),
        (ScoreEstimate(9.996, 0.0, 100.0, 9), ["10.00", "0-100"]),
        (ScoreEstimate(3.0), ["3.00"]),
        (ScoreEstimate(), ["-"]),
        (Difference(-0.001, -1.234, -0.001), ["+0.00", "-1.23..0.00"]),
        (Difference(-46.7, -47.94, -9.996), ["-46.70", "-47.9..-10.0"]),
    ],
)
def test_estimates_are_short_and_without_a_negative_zero(estimate, lines):
    assert [*_estimate_lines(estimate, signed=isinstance(estimate, Difference))] == lines
