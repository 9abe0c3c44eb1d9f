"""fast3d.yaml after a download: it names the files, and what the user wrote in it stays."""

import pytest

from fast3d_core.config import load_config
from fast3d_core.download.settings import check_settings, set_keys
from fast3d_core.errors import DataError, UsageError

LLM = {"model.llm": "llm/vicuna-7b-v1.5"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_one(tmp_path):
    assert set_keys(tmp_path, LLM) is None
    assert set_keys(tmp_path, {"data.annotations": "annotations"}) is None
    assert set_keys(tmp_path, {"maps.targets": "a", "maps.predicted": "b"}) is None
    config = load_config(tmp_path / "fast3d.yaml")
    assert (config.model.llm, config.maps.predicted) == (tmp_path / "llm/vicuna-7b-v1.5", tmp_path / "b")
    assert (tmp_path / "fast3d.yaml").read_text().startswith("# Written by")
    assert names(tmp_path) == ["fast3d.yaml"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # comments, order and other keys stay
        ("# mine\nmodel:  # a\n  dtype: float32  # b\n", "# mine\nmodel:  # a\n  llm: {}\n  dtype: float32  # b\n"),
        ("runs: r # last\n", "runs: r # last\nmodel:\n  llm: {}\n"),
        ("runs: r # no newline", "runs: r # no newline\nmodel:\n  llm: {}\n"),
        ("model:\n    dtype: float32\nruns: r\n", "model:\n    llm: {}\n    dtype: float32\nruns: r\n"),
        ("{}", "{{model: {{llm: {}}}, }}"),
        ("model: {dtype: float32} # x\n", "model: {{llm: {}, dtype: float32}} # x\n"),
        ("model: {}\n", "model: {{llm: {}, }}\n"),
        ("runs: r\r\nmodel:\r\n  dtype: float32\r\n", "runs: r\r\nmodel:\r\n  llm: {}\n  dtype: float32\r\n"),
        ("{model: {dtype: float32}}", "{{model: {{llm: {}, dtype: float32}}}}"),
    ],
)  # fmt: skip
def test_an_added_key(tmp_path, before, after):
    (tmp_path / "fast3d.yaml").write_bytes(before.encode())
    assert set_keys(tmp_path, LLM) is None
    assert (tmp_path / "fast3d.yaml").read_bytes().decode() == after.format("llm/vicuna-7b-v1.5")
    assert names(tmp_path) == ["fast3d.yaml"]


@pytest.mark.parametrize("value", ["/data/vicuna", "'quoted'", '"quoted"', "|-\n    block\n    text", ">-\n    folded"])
def test_a_replaced_value_is_kept_in_a_copy(tmp_path, value):
    before = f"model:\n  llm: {value}\n  dtype: float32\n"
    path = tmp_path / "fast3d.yaml"
    path.write_text(before)
    kept = set_keys(tmp_path, LLM)
    assert kept.name == "fast3d.yaml.old1" and kept.read_text() == before
    config = load_config(path)
    assert (config.model.llm, config.model.dtype) == (tmp_path / "llm/vicuna-7b-v1.5", "float32")
    path.write_text(before + "# more\n")
    assert set_keys(tmp_path, LLM).name == "fast3d.yaml.old2"
    path.write_text(before)  # a download was killed when the copy was made, and the file not yet changed
    assert set_keys(tmp_path, LLM).name == "fast3d.yaml.old1"
    assert names(tmp_path) == ["fast3d.yaml", "fast3d.yaml.old1", "fast3d.yaml.old2"]


def test_what_is_right_already_stays_to_the_byte(tmp_path):
    path = tmp_path / "fast3d.yaml"
    for text in ("model: {llm: ./llm/vicuna-7b-v1.5}", f"model: {{llm: {tmp_path}/llm/vicuna-7b-v1.5}}"):
        path.write_text(text)
        assert set_keys(tmp_path, LLM) is None and path.read_text() == text


@pytest.mark.parametrize(
    "text", ["---\nruns: r\n...\n", "%YAML 1.2\n---\nruns: r\n...\n", "? model\n: dtype: float32\n"]
)
def test_forms_that_are_not_edited(tmp_path, text):
    """Or they are, and rightly; what must not be is a file that is lost."""
    path = tmp_path / "fast3d.yaml"
    path.write_text(text)
    try:
        set_keys(tmp_path, LLM)
    except DataError as problem:
        assert "set in it model.llm: llm/vicuna-7b-v1.5" in str(problem)
        assert path.read_text() == text
    else:
        assert load_config(path).model.llm == tmp_path / "llm/vicuna-7b-v1.5"
    assert names(tmp_path) == ["fast3d.yaml"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").write_text("runs: r\n")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/fast3d.yaml").symlink_to("../real")
    set_keys(tmp_path / "to", LLM)
    assert (tmp_path / "to/fast3d.yaml").is_symlink()
    assert load_config(tmp_path / "to/fast3d.yaml").model.llm == tmp_path / "to/llm/vicuna-7b-v1.5"


def test_check_settings(tmp_path):
    check_settings(tmp_path)
    (tmp_path / "fast3d.yaml").write_text("modle: {}")
    with pytest.raises(UsageError):
        check_settings(tmp_path)
