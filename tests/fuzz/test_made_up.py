"""Made-up values in place of whole files: hypothesis builds them of the names and kinds of values that the real ones
have, and keeps what fails as small as it can. The same examples each time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast3d_core.config import load_config
from fast3d_core.errors import Fast3DError
from fast3d_core.files.files import parse_json
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from tests.conftest import MINIATURE
from tests.fuzz.readers import READERS, Reader, outcome, replace

same = settings(
    max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
_JSON = '[]{}":,.0123456789eE+-\\u truefalsnNaIity\ud800\udc00\n'
JSON_FILES = [(reader, name) for reader in READERS for name in reader.files if name.endswith((".json", ".jsonl"))]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 3)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["scene0015_00", "../x", "a_map", "scanqa", "1-ab"])
)


def names_in(value: Any) -> set[str]:
    """Every key in a JSON value."""
    if isinstance(value, dict):
        return set(map(str, value)).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def values(names: set[str]) -> st.SearchStrategy[Any]:
    """JSON values whose objects have these names, and others."""
    keys = st.sampled_from(sorted(names)[:60] or ["a"]) | st.text(max_size=3)
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=8), max_leaves=25
    )


@pytest.mark.parametrize(("reader", "name"), JSON_FILES, ids=lambda one: one.name if isinstance(one, Reader) else one)
def test_json(reader: Reader, name: str, folder: Path) -> None:
    first = (folder / name).read_text(encoding="utf-8").splitlines()
    whole = json.loads(first[0]) if name.endswith("l") else json.loads("\n".join(first))

    @same
    @given(values(names_in(whole)))
    def check(value: Any) -> None:
        replace(folder / name, json.dumps(value).encode("utf-8", "surrogatepass"))
        line = outcome(reader, folder)
        assert line is None or ("\n" not in line and len(line) < 600 + 3 * len(str(folder)))

    check()


@settings(parent=same, max_examples=300)
@given(
    st.text(alphabet='[]{}":,.0123456789eE+-\\u truefalsnNaIity\ud800\udc00\n', max_size=60)
    | values(set()).map(json.dumps)
)
def test_any_json(text: str) -> None:
    """What is read can be written again, as it was."""
    try:
        value = parse_json(text)
    except ValueError:
        return
    again = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert json.loads(again) == value


@settings(parent=same, max_examples=300)
@given(st.text(alphabet="abmodelt: -[]{}&*!|>'\"#%@,?\t\n0123456789.~é", max_size=80))
def test_any_yaml(text: str) -> None:
    path = Path("made_up.yaml")  # the tests run in a folder of their own
    path.write_text(text, encoding="utf-8")
    try:
        load_config(path)
    except Fast3DError as problem:
        assert "\n" not in str(problem)


@settings(parent=same, max_examples=300)
@given(st.text(max_size=40) | st.text(alphabet="<OBJ0129>s/ ▁", max_size=40))
def test_any_question(text: str) -> None:
    tokenizer = ChatSceneTokenizer(MINIATURE.parent / "llm")
    ids = tokenizer.encode(text, bos=True)
    assert all(0 <= i < len(tokenizer) for i in ids)
    tokenizer.decode(ids)
