"""The house rules on size: no file over 400 lines, no function whose body is over 60."""

import ast
from collections.abc import Iterator
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
