"""docs/, word by word: commands run, or, where they need files or GPUs, have the options that they are given."""

import ast
import re
import shlex
import shutil

import pytest

from fast3d_core import doctor, load_config
from fast3d_core.doctor import Options
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.checks import CONFIG, all_checks
from fast3d_core.pruning import METHODS, Sap, Vanilla
from tests.cli.conftest import ROOT
from tests.cli.documents import DOCS, blocks, fast3d_commands, lines
from tests.conftest import MINIATURE
from tests.report.fabricate import answered_run, long_answers, right_answer

PAGES = {"README": (ROOT / "README.md").read_text(), **{f"docs/{name}": text for name, text in DOCS.items()}}


ELSEWHERE = ("quick-start", "report")  # the first in test_readme.py, with the README's, the other below


@pytest.mark.parametrize("name", sorted(name for name in DOCS if lines(DOCS[name], "bash") and name not in ELSEWHERE))
def test_commands(fast3d, tmp_path, files, name):
    """In order, in one folder, where the miniature's files lie under the default names, with four layers. METEOR, which
    takes seconds to start, is left to the README's."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    for command in fast3d_commands(DOCS[name]):
        spared = ["--no-meteor"] if command[0] in ("eval", "score") and "--dry-run" not in command else []
        assert fast3d(*command, *spared).stdout, command
    others = [line for line in lines(DOCS[name], "bash") if not line.startswith("fast3d ")]
    assert all(line.startswith("accelerate ") for line in others)  # test_readme.py has it, with the README's


def test_the_report_s_commands(fast3d, tmp_path, files):
    """The miniature answers nothing right, so made-up answers, of which something can be plotted, replace its own."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    config = load_config(tmp_path / "fast3d.yaml")
    long_answers(config)
    evaluation, *reports = fast3d_commands(DOCS["report"])
    assert fast3d(*evaluation).stdout
    shutil.rmtree(config.runs)
    for pruner in (Vanilla(), Sap(0.67)):
        answered_run(config, pruner, right_answer)
    for command in reports:
        assert fast3d(*command).stdout, command
    assert (tmp_path / "report.html").stat().st_size < 5_000_000 and (tmp_path / "figure.svg").exists()


@pytest.mark.parametrize("name", sorted(name for name in PAGES if fast3d_commands(PAGES[name], "text")))
def test_options(fast3d, name):
    """--help wins over everything but an option that there is not."""
    for line in lines(PAGES[name], "text"):
        if line.startswith("fast3d "):
            assert fast3d(*shlex.split(line)[1:], "--help").stdout, line
    assert fast3d("eval", "--methods", "sap", "--help", check=False).returncode == 2


@pytest.mark.parametrize("code", blocks(DOCS["python"], "python"), ids=lambda code: str(len(code)))
def test_python(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_the_readme_s_five_lines_begin_the_python_page():
    assert blocks(PAGES["README"], "python") == blocks(DOCS["python"], "python")[:1]


def test_links():
    """Every relative link leads to a file, and to a heading in it."""
    for name, text in PAGES.items():
        folder = (ROOT / f"{name}.md").parent
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            target = (folder / path).resolve() if path else ROOT / f"{name}.md"
            assert target.exists(), (name, path)
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], anchor


def test_every_page_is_listed():
    assert {name for name in DOCS if name != "README"} <= set(re.findall(r"\((\S+)\.md\)", DOCS["README"]))


def test_every_method_has_a_section_and_a_picture():
    sections = re.findall(r"^## (\w+)\n\n!\[.*\]\(images/(\w+)\.svg\)", DOCS["methods"], re.MULTILINE)
    assert sections == [(name, name) for name in METHODS]


def test_every_area_of_doctor_has_a_section():
    case = Case(Options(lambda: load_config(MINIATURE), deep=True))
    areas = {"versions", "not checked", CONFIG.area, *(check.area for check in all_checks(case))}
    assert set(re.findall(r"^## `(.*)`$", DOCS["troubleshooting"], re.MULTILINE)) == areas


def test_every_finding_of_doctor_is_explained():
    """In its own words: the longest piece between what differs from case to case."""
    text = " ".join(DOCS["troubleshooting"].split())
    found = [piece for path in ROOT.glob("fast3d_core/doctor/**/*.py") for piece in _findings(path.read_text())]
    assert len(found) >= 35 and doctor.examine
    assert [piece for piece in found if piece not in text] == []


def _findings(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and {"warning", "error"} & _names(node.func):
            pieces = [str(one.value).strip() for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)]
            pieces = [piece for piece in pieces if len(piece) > 8]
            if pieces:
                yield max(pieces, key=len)


def _names(function):
    return {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
