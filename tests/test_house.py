"""The house rules: no file over 400 lines, no function whose body is over 60; CONTRIBUTING names what is there."""

import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("fast3d_core", "fast3d_cli", "tools") for path in (ROOT / package).rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and length of every function in a file, nested ones and methods too.

    The length is that of the body, from its first statement to its last line, without the docstring. Decorators and
    signature do not count: of a command they are its list of options.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_lengths_are_counted():
    text = (
        'def short():\n    """Says so."""\n\n\ndef long(\n    option,\n):\n    """Two\n    lines."""\n    if option:\n'
    )
    text += "        print()\n\n    def inner():\n        pass\n    return inner\n"
    assert list(functions(text)) == [("short", 0), ("long", 6), ("inner", 1)]
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    assert not [(name, length) for name, length in functions(text) if length > LONGEST_FUNCTION]


def test_contributing_names_everything_at_the_top_of_the_library():
    """Whoever looks for a place finds it in "Where things are", and nothing there is gone."""
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("    fast3d_core/ ")[1].split("    tools/")[0]
    lines = [line.split() for line in tree.splitlines() if re.match(r" {6}\S", line)]
    named = [word for line in lines for word in takewhile(lambda word: word.endswith(("/", ".py")), line)]
    there = [f"{one.name}/" if one.is_dir() else one.name for one in (ROOT / "fast3d_core").iterdir()]
    assert sorted(named) == sorted(set(there) - {"__init__.py", "__pycache__/", "py.typed"})
