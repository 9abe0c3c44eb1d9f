"""Files that fast3d wrote are read back strictly; errors name the field in one short line."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from pydantic import Field

from fast3d_core.errors import DataError
from fast3d_core.files.typed import LENIENT, STRICT, FieldError, load_typed, parse_typed, to_json


@dataclass(frozen=True)
class Inner:
    __pydantic_config__ = STRICT

    share: Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Outer:
    __pydantic_config__ = STRICT

    count: int
    inner: Inner
    either: float | dict[str, float]
    known: list[str] = field(default_factory=list)
    anything: Any = None

    def __post_init__(self) -> None:
        if self.count == 7:
            raise ValueError("count must not be seven")


@dataclass(frozen=True)
class Part:
    __pydantic_config__ = LENIENT

    count: int


WHOLE = {"count": 1, "inner": {"share": 0.5}, "either": 2}


def test_what_is_written_is_read():
    value = Outer(1, Inner(0.5), {"a": 2.0}, ["x\u2028\x00"], [1, None])
    assert parse_typed(Outer, to_json(value)) == value and "\n" not in to_json(value)
    assert parse_typed(Part, json.dumps(WHOLE)) == Part(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": True}, "count is True: input should be a valid integer"),
        ({"count": 1.0}, "count is 1.0: input should be a valid integer"),
        ({"count": "1"}, "count is '1': input should be a valid integer"),
        ({"count": 7}, "count must not be seven"),
        ({"inner": {}}, "inner.share is missing"),
        ({"inner": {"share": 0}}, "inner.share is 0: input should be greater than 0"),
        ({"inner": {"share": True}}, "inner.share is True: input should be a valid number"),
        ({"inner": [1]}, "inner is this list: input should be an object"),
        ({"either": None}, "either is None: input should be a valid number"),
        ({"either": {"a": "x"}}, "either.a is 'x': input should be a valid number"),
        ({"more": 1}, "more is no field of it"),
        ({"\x1b[2J\n" * 99: 1}, "is no field of it"),
        ({"known": "x" * 10**6}, "known is 'xxx"),
    ],
)
def test_a_damaged_field_is_named(tmp_path, change, message):
    (tmp_path / "x.json").write_text(json.dumps(WHOLE | change))
    with pytest.raises(DataError) as error:
        load_typed(Outer, tmp_path / "x.json", "x", "make it again")
    line = str(error.value)
    assert message in line and line.startswith(f"{tmp_path / 'x.json'} is damaged: ") and line.endswith("make it again")
    assert line.isprintable() and len(line) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, '{"count": NaN}', "9" * 10**6, '"\\ud800"', '{"count": 1e999}'])
def test_what_is_no_json_of_the_type(tmp_path, text):
    with pytest.raises(FieldError):
        parse_typed(Outer, text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError):
        load_typed(Outer, tmp_path / "x.json", "x", "make it again")


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "9" * 30, '"\\udc00"', "[" * 200 + "]" * 200])
def test_what_a_field_of_any_type_may_not_hold(tmp_path, value):
    (tmp_path / "x.json").write_text(json.dumps(WHOLE)[:-1] + f', "anything": {value}}}')
    with pytest.raises(DataError, match="is not valid JSON"):
        load_typed(Outer, tmp_path / "x.json", "x", "make it again")
