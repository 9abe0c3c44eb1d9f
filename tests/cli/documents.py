"""What the tests take out of README.md and docs/: blocks of a language, and commands."""

import re
import shlex

from tests.cli.conftest import ROOT

DOCS = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines(text, language):
    return [line for block in blocks(text, language) for line in block.splitlines()]


def fast3d_commands(text, language="bash"):
    """The arguments of each; those of several processes have a test of their own."""
    commands = [line for line in lines(text, language) if line.startswith("fast3d ") and "--processes" not in line]
    return [shlex.split(line)[1:] for line in commands]
