"""Damage of any file at any place: findings, never a traceback; a finding, too, that no check failed by itself."""

import random

import pytest

from tests.conftest import MINIATURE

FILES = sorted(path.relative_to(MINIATURE.parent) for path in MINIATURE.parent.rglob("*") if path.is_file())


@pytest.mark.parametrize("seed", range(40))
def test_damage(examined, files, seed):
    draw = random.Random(seed)
    name = FILES[seed % len(FILES)]
    content = bytearray((files / name).read_bytes())
    if draw.random() < 0.5:
        for _ in range(draw.choice([1, 3, 20])):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        del content[draw.randrange(len(content)) :]
    (files / name).write_bytes(content)
    for found in examined(live=draw.random() < 0.3, deep=draw.random() < 0.3):
        assert "the check itself failed" not in found.what
        assert (found.what + found.do + found.area).isprintable()
