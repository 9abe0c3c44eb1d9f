"""The config file: defaults, paths, overrides, and errors of one line that name the key and the file."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import typing
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fast3d_core import defaults
from fast3d_core.config import (
    DATASETS,
    Config,
    GenerationConfig,
    default_yaml,
    document,
    load_config,
    loading,
    need_path,
    output_path,
    to_dict,
)
from fast3d_core.config.schema import keys_of
from fast3d_core.errors import DataError, Fast3DError, UsageError
from fast3d_core.fields import setting
from fast3d_core.files import cache
from fast3d_core.files.cache import CACHE
from fast3d_core.registry import BENCHMARKS

EMBEDDED = CACHE / "demo" / "fast3d.yaml"

# The schema as the project promises it; the dataclasses must agree.
SCHEMA = """
model: {kind: chat-scene, llm: llm/vicuna-7b-v1.5, checkpoint: ckpt_01_3446.pth, lora_alpha: 16, dtype: bfloat16,
        device: auto, allow_unexpected: false}
data: {annotations: annotations, datasets: [scanrefer, multi3dref, scan2cap, scanqa, sqa3d], max_objects: 100}
maps: {predicted: outputs/pred_attn_maps, targets: outputs/infer_attn_maps}
gap: {text_encoder: FacebookAI/roberta-base, checkpoint: outputs/gap/checkpoint_best.safetensors, heads: 12, layers: 4}
generation: {beams: 5, max_new_tokens: 64, repetition_penalty: 3.0, length_penalty: 1.0, min_length: 1}
eval: {batch_size: 32, engine: fast, reuse_scene: false}
runs: runs
"""
PATHS = [
    "model.llm",
    "model.checkpoint",
    "data.annotations",
    "maps.predicted",
    "maps.targets",
    "gap.checkpoint",
    "runs",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, away from the config files' folders."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path


def write(folder: Path, text: str | bytes, name: str = "fast3d.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def value(config: Config, key: str):
    settings = to_dict(config)
    for part in key.split("."):
        settings = settings[part]
    return settings


def error(path: Path | None, *overrides: str, kind: type[Fast3DError] = UsageError) -> str:
    """The message of the error that loading raises, with the config's folder taken out."""
    with pytest.raises(Fast3DError) as caught:
        defaults.load_config(path, overrides)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600  # one line
    return message.replace(f"{path.parent}/", "") if path else message


# --- defaults


@pytest.mark.parametrize("text", ["{}", SCHEMA, default_yaml()], ids=["empty mapping", "promised", "default_yaml"])
def test_defaults_are_the_promised_schema(folder, text):
    config = load_config(write(folder, text))
    promised = yaml.safe_load(SCHEMA)
    expected = {
        s: {k: str(folder / v) if f"{s}.{k}" in PATHS else v for k, v in keys.items()}
        for s, keys in promised.items()
        if s != "runs"
    }
    assert to_dict(config) == {**expected, "runs": str(folder / "runs")}
    for key in PATHS:
        section = getattr(config, key.split(".")[0])
        path = section if key == "runs" else getattr(section, key.split(".")[1])
        assert isinstance(path, Path) and path.is_absolute()
    assert isinstance(config.model.lora_alpha, float) and isinstance(config.data.datasets, tuple)


def test_default_yaml_holds_exactly_the_defaults_with_a_comment_on_every_line():
    assert yaml.safe_load(default_yaml()) == yaml.safe_load(SCHEMA)
    assert list(yaml.safe_load(default_yaml())) == list(yaml.safe_load(SCHEMA))
    for line in default_yaml().splitlines():
        assert len(line.partition("#")[2].strip()) >= 10, line


def test_default_yaml_documents_bounds_and_choices():
    lines = {line.split(":")[0].strip(): line for line in default_yaml().splitlines()}
    assert lines["beams"].endswith("(1 to 1000)")
    assert lines["lora_alpha"].endswith("(above 0; at most 10000)")
    assert lines["dtype"].endswith("(float32, bfloat16, float16)")


def test_every_number_has_bounds_on_both_sides():
    numbers = [key for _, key in keys_of(Config) if {key.type, *typing.get_args(key.type)} & {int, float}]
    assert len(numbers) == 10
    for key in numbers:
        least, above, most = (key.metadata[name] for name in ("at_least", "above", "at_most"))
        assert (least is None) != (above is None) and most is not None, key.name


@pytest.mark.parametrize("penalty", [-5, 5])
def test_scores_neither_over_nor_underflow_at_the_ends_of_length_penalty(penalty):
    """Sums are between 1e-7, what float32 may leave of a probability next to 1, and 4096 tokens of repeated -100."""
    longest = GenerationConfig.__dataclass_fields__["max_new_tokens"].metadata["at_most"]
    assert GenerationConfig.__dataclass_fields__["length_penalty"].metadata["at_most"] == 5
    norm = np.float32((longest + 1) ** penalty)
    scores = np.float32([1e-7, 4096 * 100 * 100]) / norm
    assert np.isfinite(scores).all() and (scores > np.finfo(np.float32).tiny).all()


def test_a_new_key_is_added_in_one_place(folder, monkeypatch):
    """A key and a section that only a dataclass knows are read, checked, suggested, documented and recorded."""

    @dataclasses.dataclass(frozen=True)
    class Inner:
        """a section in a section"""

        heads: int = setting(12, "attention heads of the decoder", at_least=1)

    @dataclasses.dataclass(frozen=True)
    class Section:
        """a section"""

        inner: Inner
        rate: float = setting(0.5, "learning rate per step")

    @dataclasses.dataclass(frozen=True)
    class Wider(Config):
        section: Section = None

    for module in (document, loading):
        monkeypatch.setattr(module, "Config", Wider)
    config = load_config(write(folder, default_yaml()), ["section.inner.heads=8"])
    assert (config.section.inner.heads, config.section.rate) == (8, 0.5)
    assert to_dict(config)["section"] == {"inner": {"heads": 8}, "rate": 0.5}
    assert "  rate: 0.5  # learning rate per step" in default_yaml()
    assert '"section.inner.heads"?' in error(None, "section.inner.head=8")
    assert error(None, "section.inner.heads=0") == "--set: section.inner.heads must be at least 1, not 0"


# --- which file


def test_given_file_then_current_folder_then_embedded(folder):
    here, other = Path.cwd(), write(folder, "generation: {beams: 2}", "other.yaml")
    assert defaults.load_config().embedded and defaults.load_config().source == EMBEDDED
    local = write(here, "generation: {beams: 3}")
    config = defaults.load_config()
    assert (config.generation.beams, config.source, config.embedded) == (3, local, False)
    config = defaults.load_config(other)
    assert (config.generation.beams, config.source, config.embedded) == (2, other, False)
    assert config.runs == folder / "runs"
    assert defaults.load_config(Path("../other.yaml")).generation.beams == 2


def test_the_embedded_config_reads_beside_itself_and_writes_into_the_current_folder(folder):
    config = defaults.load_config()
    assert config.runs == Path.cwd() / "runs"
    assert config.model.llm.is_relative_to(EMBEDDED.parent) and config.model.llm.is_dir()
    given = Path(f"{EMBEDDED.parent}/outputs/../{EMBEDDED.name}")  # as a child process may be given it
    same = defaults.load_config(given)
    assert same.embedded and same.runs == config.runs


def test_the_demo_s_config_of_any_release_writes_into_the_current_folder(folder, monkeypatch):
    monkeypatch.setattr(cache, "CACHE", folder / "cache")
    for name, embedded in (("demo-0123456789abcdef", True), ("demo", True), ("demo-mine", False), ("other", False)):
        (folder / "cache" / name).mkdir(parents=True)
        config = defaults.load_config(write(folder / "cache" / name, "{}"))
        assert config.embedded == embedded
        assert config.runs == (Path.cwd() if embedded else folder / "cache" / name) / "runs"
        assert output_path(config, "gap.checkpoint").is_relative_to(config.runs.parent)


def test_a_missing_file_is_named_with_its_neighbour(folder):
    path = write(folder, "{}", "fast3d.yaml")
    message = error(folder / "fast3d.yml", kind=DataError)
    assert "--config" in message and message.endswith("fast3d.yml does not exist; did you mean fast3d.yaml?")
    assert "there is no folder" in error(folder / "nowhere" / path.name, kind=DataError)


def test_a_broken_local_file_is_not_replaced_by_the_demo(folder):
    Path("fast3d.yaml").symlink_to("gone.yaml")
    assert error(None, kind=DataError).startswith("--config: fast3d.yaml does not exist")


@pytest.mark.parametrize("name", ["", "a" * 300])
def test_a_path_that_cannot_be_read(folder, name):
    assert "cannot be read" in error(folder / name, kind=DataError)


def test_a_loop_of_links(folder):
    Path("loop.yaml").symlink_to("loop.yaml")
    assert "cannot be read" in error(Path("loop.yaml"), kind=DataError)


# --- paths


def test_paths_are_relative_to_the_file_and_in_overrides_to_the_current_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    path = write(folder, f"model: {{llm: a, checkpoint: ~/b.pth}}\nruns: {folder}/c\ngap: {{checkpoint: ./~}}\n")
    config = load_config(path, ["data.annotations=d", "maps.predicted=~/e", "maps.targets=../f"])
    assert config.model.llm == folder / "a"
    assert config.model.checkpoint == Path("/home/me/b.pth")
    assert config.runs == folder / "c"
    assert config.gap.checkpoint == folder / "~"
    assert config.data.annotations == folder / "here" / "d"
    assert config.maps.predicted == Path("/home/me/e")
    assert config.maps.targets == folder / "here" / "../f"


def test_the_text_encoder_is_a_folder_if_there_is_one_else_a_hub_name(folder):
    path = write(folder, "gap: {text_encoder: some/encoder}")
    assert load_config(path).gap.text_encoder == "some/encoder"
    (folder / "some" / "encoder").mkdir(parents=True)
    assert load_config(path).gap.text_encoder == folder / "some" / "encoder"
    assert load_config(path, ["gap.text_encoder=some/encoder"]).gap.text_encoder == "some/encoder"  # not below here
    (folder / "FacebookAI" / "roberta-base").mkdir(parents=True)  # a default counts as written in the file
    assert load_config(write(folder, "{}")).gap.text_encoder == folder / "FacebookAI" / "roberta-base"


@pytest.mark.parametrize("text", ["./enc", "../enc", "..", "/enc", "~/enc"])
def test_a_text_encoder_written_like_a_path_is_one(folder, text):
    assert isinstance(load_config(write(folder, f"gap: {{text_encoder: {text}}}")).gap.text_encoder, Path)


def test_need_path_names_the_key_where_it_was_set_and_the_nearest_name(folder):
    write(folder, "x", "ckpt_01_3446.pth")
    path = write(folder, "model: {checkpoint: ckpt_01_346.pth}\nruns: .\n")
    config = load_config(path)
    assert need_path(config, "runs") == folder
    with pytest.raises(DataError) as caught:
        need_path(config, "model.checkpoint")
    missing = folder / "ckpt_01_346.pth"
    assert str(caught.value) == (
        f"model.checkpoint in {path}: {missing} does not exist; did you mean ckpt_01_3446.pth?"
    )
    with pytest.raises(DataError, match=r"data.annotations \(default; not set in .*fast3d.yaml\): .*/annotations does"):
        need_path(config, "data.annotations")
    with pytest.raises(DataError, match=r"data.annotations in --set: .*/here/gone does not exist"):
        need_path(load_config(path, ["data.annotations=gone"]), "data.annotations")
    assert need_path(load_config(path, ["model.checkpoint=../ckpt_01_3446.pth"]), "model.checkpoint").is_file()
    with pytest.raises(DataError, match="cannot be read"):
        need_path(load_config(path, [f"runs={'a' * 5000}"]), "runs")
    with pytest.raises(TypeError, match=r"gap.text_encoder holds no path"):
        need_path(config, "gap.text_encoder")


# --- overrides


def test_overrides_are_yaml_and_the_last_one_wins(folder):
    path = write(folder, "generation: {beams: 2}\neval: {batch_size: 8}\n")
    overrides = ["generation.beams=3", " generation.beams = 4 ", "model={dtype: float16, device: cuda:0}"]
    config = load_config(path, [*overrides, "data.datasets=[sqa3d, scanqa]", "model.allow_unexpected=true", "runs=a=b"])
    assert config.generation.beams == 4 and config.eval.batch_size == 8
    assert (config.model.dtype, config.model.device, config.model.allow_unexpected) == ("float16", "cuda:0", True)
    assert config.data.datasets == ("sqa3d", "scanqa")
    assert config.runs == Path.cwd() / "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generation.beams", '--set "generation.beams": write it as key.sub=value, such as generation.beams=1'),
        ("=1", '--set "=1": write it as key.sub=value, such as generation.beams=1'),
        ("generation.beems=1", 'unknown key "generation.beems" in --set; did you mean "generation.beams"?'),
        ("beams=1", 'unknown key "beams" in --set; did you mean "generation.beams"?'),
        ("modle.dtype=float16", 'unknown key "modle" in --set; did you mean "model"?'),
        ("runs.x=1", '--set: runs must be a path, not {"x": 1}'),
        ("runs=", "--set: runs must be a path, not null"),
        ("model=5", "--set: model must be a mapping of keys to values, not 5"),
        ("generation.beams=[", "--set: the value of generation.beams is not valid YAML: "),
        ("runs=@x", "--set: the value of runs is not valid YAML: "),
        ("source=/x", 'unknown key "source" in --set'),
        ("model..dtype=x", 'unknown key "model." in --set; known here: model.kind'),
    ],
)
def test_a_wrong_override_names_itself(folder, override, message):
    assert error(write(folder, "{}"), override).startswith(message)


# --- wrong keys and values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {checkpont: x}", 'unknown key "model.checkpont" in fast3d.yaml; did you mean "model.checkpoint"?'),
        ("generaton: {}", 'unknown key "generaton" in fast3d.yaml; did you mean "generation"?'),
        ("batch_size: 4", 'unknown key "batch_size" in fast3d.yaml; did you mean "eval.batch_size"?'),
        ("eval: {beams: 4}", 'unknown key "eval.beams" in fast3d.yaml; did you mean "generation.beams"?'),
        ("datasets: [sqa3d]", 'unknown key "datasets" in fast3d.yaml; did you mean "data.datasets"?'),
        ("max_token: 4", 'unknown key "max_token" in fast3d.yaml; did you mean "generation.max_new_tokens"?'),
        ("maps: {chekpoint: 4}", 'unknown key "maps.chekpoint" in fast3d.yaml; did you mean "gap.checkpoint"?'),
        ("model.llm: x", 'unknown key "model.llm" in fast3d.yaml; write llm as a key under model'),
        ("zzz: 1", 'unknown key "zzz" in fast3d.yaml; known here: model, data, maps, gap, generation, eval, runs'),
        ("eval: {zzz: 1}", 'unknown key "eval.zzz" in fast3d.yaml; known here: eval.batch_size, eval.engine'),
        ("source: x", 'unknown key "source" in fast3d.yaml; known here:'),
        ("embedded: true", 'unknown key "embedded" in fast3d.yaml; known here:'),
        ("1: x", 'unknown key "1" in fast3d.yaml; known here:'),
        ("<<: {runs: x}", 'unknown key "<<" in fast3d.yaml; known here:'),
        ("model: 5", "fast3d.yaml: model must be a mapping of keys to values, not 5"),
        ("model:", "fast3d.yaml: model must be a mapping of keys to values, not null"),
        ("[model]", 'fast3d.yaml: a config must be a mapping of keys to values, not ["model"]'),
        ("just text", 'fast3d.yaml: a config must be a mapping of keys to values, not "just text"'),
        ('model: {lora_alpha: "16"}', 'fast3d.yaml: model.lora_alpha must be a number, not "16"'),
        ("model: {lora_alpha: true}", "fast3d.yaml: model.lora_alpha must be a number, not true"),
        ("model: {lora_alpha: 0}", "fast3d.yaml: model.lora_alpha must be above 0, not 0"),
        ("model: {lora_alpha: 1.0e+400}", "fast3d.yaml: model.lora_alpha must be a finite number, not Infinity"),
        ("model: {lora_alpha: .inf}", 'fast3d.yaml: model.lora_alpha must be a number, not ".inf"'),
        ('{"model": {"lora_alpha": NaN}}', 'fast3d.yaml: model.lora_alpha must be a number, not "NaN"'),
        ("model: {dtype: fp16}", 'fast3d.yaml: model.dtype must be one of float32, bfloat16, float16, not "fp16"'),
        ("model: {dtype: bfloat}", 'not "bfloat"; did you mean "bfloat16"?'),
        ("model: {dtype: 16}", "fast3d.yaml: model.dtype must be one of float32, bfloat16, float16, not 16"),
        ("model: {device: gpu}", 'fast3d.yaml: model.device must be auto, cpu, cuda or cuda:N, not "gpu"'),
        ("model: {device: 'cuda:'}", 'fast3d.yaml: model.device must be auto, cpu, cuda or cuda:N, not "cuda:"'),
        ("model: {device: 0}", "fast3d.yaml: model.device must be auto, cpu, cuda or cuda:N, not 0"),
        ("model: {allow_unexpected: 1}", "fast3d.yaml: model.allow_unexpected must be true or false, not 1"),
        ("model: {allow_unexpected: 'true'}", 'fast3d.yaml: model.allow_unexpected must be true or false, not "true"'),
        ("model: {llm: 5}", "fast3d.yaml: model.llm must be a path, not 5"),
        ("model: {llm: ''}", 'fast3d.yaml: model.llm must be a path, not ""'),
        ("model: {llm: ~}", "fast3d.yaml: model.llm must be a path, not null"),
        ('model: {llm: "a\\0b"}', 'fast3d.yaml: model.llm must be a path, not "a\\u0000b"'),
        ("model: {llm: ~nobody_here/x}", "fast3d.yaml: model.llm must be under a home folder that exists, not"),
        (
            "gap: {text_encoder: [x]}",
            "fast3d.yaml: gap.text_encoder must be a folder or a Hugging Face model name, not",
        ),
        ("data: {datasets: scanqa}", 'not "scanqa"; write [scanqa]'),
        ("data: {datasets: []}", "fast3d.yaml: data.datasets must be a list of names out of scanrefer, multi3dref, "),
        ("data: {datasets: [scanref]}", 'not "scanref"; did you mean "scanrefer"?'),
        ("data: {datasets: [1]}", f"{list(BENCHMARKS.builtin)[-1]}, not 1"),
        ("data: {datasets: [scanqa, scanqa]}", "fast3d.yaml: data.datasets must be a list without repeats, not"),
        ("data: {max_objects: 0}", "fast3d.yaml: data.max_objects must be at least 1, not 0"),
        ("generation: {beams: 0}", "fast3d.yaml: generation.beams must be at least 1, not 0"),
        ("generation: {beams: 2.0}", "fast3d.yaml: generation.beams must be an integer, not 2.0"),
        ("generation: {beams: true}", "fast3d.yaml: generation.beams must be an integer, not true"),
        ("generation: {beams: 010}", 'fast3d.yaml: generation.beams must be an integer, not "010"'),
        ("generation: {beams: 1:30}", 'fast3d.yaml: generation.beams must be an integer, not "1:30"'),
        (f"generation: {{beams: {'9' * 5000}}}", "fast3d.yaml: generation.beams must be an integer, not "),
        ("generation: {max_new_tokens: 0}", "fast3d.yaml: generation.max_new_tokens must be at least 1, not 0"),
        (
            "generation: {repetition_penalty: -1}",
            "fast3d.yaml: generation.repetition_penalty must be at least 0.01, not",
        ),
        ("model: {lora_alpha: 1.0e+308}", "fast3d.yaml: model.lora_alpha must be at most 10000, not 1e+308"),
        ("data: {max_objects: 1001}", "fast3d.yaml: data.max_objects must be at most 1000, not 1001"),
        ("gap: {heads: 257}", "fast3d.yaml: gap.heads must be at most 256, not 257"),
        ("gap: {layers: 101}", "fast3d.yaml: gap.layers must be at most 100, not 101"),
        ("generation: {beams: 999999999999999999}", "generation.beams must be at most 1000, not 999999999999999999"),
        ("generation: {max_new_tokens: 4097}", "generation.max_new_tokens must be at most 4096, not 4097"),
        ("generation: {min_length: 4097}", "generation.min_length must be at most 4096, not 4097"),
        ("generation: {repetition_penalty: 101}", "generation.repetition_penalty must be at most 100, not 101"),
        ("generation: {length_penalty: 400}", "fast3d.yaml: generation.length_penalty must be at most 5, not 400"),
        ("generation: {length_penalty: -60}", "fast3d.yaml: generation.length_penalty must be at least -5, not -60"),
        ("eval: {batch_size: 4097}", "fast3d.yaml: eval.batch_size must be at most 4096, not 4097"),
        ("generation: {min_length: -1}", "fast3d.yaml: generation.min_length must be at least 0, not -1"),
        ("eval: {batch_size: 0}", "fast3d.yaml: eval.batch_size must be at least 1, not 0"),
        ("eval: {batch_size: 1.5}", "fast3d.yaml: eval.batch_size must be an integer, not 1.5"),
        ("eval: {batch_size: Auto}", 'fast3d.yaml: eval.batch_size must be an integer or auto, not "Auto"'),
        ("eval: {batch_size: [auto]}", 'fast3d.yaml: eval.batch_size must be an integer, not ["auto"]'),
        ("eval: {batch_size: true}", "fast3d.yaml: eval.batch_size must be an integer, not true"),
        ("eval: {engine: Fast}", 'fast3d.yaml: eval.engine must be one of fast, reference, not "Fast"; did you mean'),
        ('runs: ["\\x1b[2J\\n\\x9b"]', 'fast3d.yaml: runs must be a path, not ["\\u001b[2J\\n\\x9b"]'),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file(folder, text, message):
    assert message in error(write(folder, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no settings"),
        ("# only a comment\n", "it holds no settings"),
        ("model: {llm: a", r"line 1"),
        ("runs: a\n\tb: c", "line 2"),
        ("runs: a\nruns: b", 'duplicate key "runs" (line 2, column 1)'),
        ("model: {llm: a, llm: a}", 'duplicate key "llm" (line 1, column 17)'),
        ('{"model": {"dtype": "float16"}, "model": {}}', 'duplicate key "model"'),
        ("model: &m {llm: a}", "anchors and aliases"),
        ("runs: *m", "anchors and aliases"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors and aliases"),
        ("runs: !!python/object/apply:os.system [ls]", "tags (!) are not allowed (line 1, column 7)"),
        ("runs: !!timestamp x", "tags (!) are not allowed"),
        ("runs: a\n---\nruns: b", "line 2"),
        ("? [a]\n: b", "line 1"),
        ("[" * 100_000, "nested too deeply"),
        ("a:\n- " + "x\n- " * 200_000, "more than 10000 values"),
        ('runs: "\\ud800"', "half of a surrogate pair (line 1, column 7)"),
        (b"runs: \xff", "not UTF-8 text (byte 6)"),
        (b"runs: \x00", "special characters are not allowed (character 6)"),
        ("#" * 1_000_001, "larger than 1 MB"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_a_file_that_is_no_plain_yaml_mapping(folder, text, message):
    path = write(folder, text)
    start = time.monotonic()
    found = error(path, kind=DataError)
    assert found.startswith("fast3d.yaml: ") and message in found
    assert time.monotonic() - start < 30  # an unguarded loader takes minutes or does not end


def test_a_file_of_one_megabyte_is_read(folder):
    text = "runs: x\n#"
    assert load_config(write(folder, text + "#" * (1_000_000 - len(text)))).runs == folder / "x"


# --- what other programs write


def test_json_as_another_program_writes_it(folder):
    """The shape of a config that scripts generate: JSON, no maps, a checkpoint that is the text None."""
    raw = {
        "model": {"llm": "/x/llama", "checkpoint": "/x/c.pth", "lora_alpha": 16, "dtype": "float32", "device": "cpu"},
        "data": {"annotations": "/x/annotations", "datasets": list(DATASETS), "max_objects": 100},
        "gap": {"text_encoder": "/x/roberta", "checkpoint": "None"},
        "generation": {"beams": 5, "max_new_tokens": 12, "repetition_penalty": 3.0, "length_penalty": 1e-05},
        "runs": "/x/\N{SNOWMAN}/\N{GRINNING FACE}/2024-05-01",
    }
    config = load_config(write(folder, json.dumps(raw)))
    assert config.gap.checkpoint == folder / "None"
    assert config.gap.text_encoder == Path("/x/roberta")
    assert config.maps.predicted == folder / "outputs/pred_attn_maps"
    assert config.generation.length_penalty == 1e-05
    assert config.runs == Path(raw["runs"])
    assert load_config(write(folder, json.dumps(raw, indent=2))) == config
    assert load_config(write(folder, "\ufeff" + yaml.safe_dump(raw, allow_unicode=True))) == config


def test_dates_are_text_and_yes_is_true(folder):
    config = load_config(write(folder, "runs: 2024-05-01\nmodel: {allow_unexpected: yes}"))
    assert config.runs == folder / "2024-05-01" and config.model.allow_unexpected is True


# --- Config as a value


def test_configs_are_equal_when_their_settings_are(folder):
    a = load_config(write(folder, "generation: {beams: 2}", "a.yaml"))
    b = load_config(write(folder, "{}", "b.yaml"), ["generation.beams=2"])
    assert a == b and hash(a) == hash(b) and a.source != b.source
    assert a != load_config(b.source)
    assert a.origins == {"generation.beams": str(a.source)} and b.origins == {"generation.beams": "--set"}
    assert pickle.loads(pickle.dumps(a)) == a
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.generation.beams = 3


def test_loading_does_not_import_torch_and_is_quick(folder):
    code = (
        "import sys, time, yaml; start = time.process_time(); import fast3d_core.defaults as c; "
        "seconds = time.process_time() - start; c.load_config(); assert 'torch' not in sys.modules; print(seconds)"
    )
    root = Path(defaults.__file__).parents[1]
    env = {"PYTHONPATH": str(root), "FAST3D_CACHE": os.environ["FAST3D_CACHE"]}
    runs = [subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.1


# --- hypothesis

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)
hub_names = st.from_regex(r"[A-Za-z]{1,8}/[A-Za-z0-9._-]{1,8}", fullmatch=True)
valid = {
    "model.lora_alpha": st.floats(0, 10_000, exclude_min=True) | st.integers(1, 10_000),
    "model.dtype": st.sampled_from(["float32", "bfloat16", "float16"]),
    "model.device": st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:12"]),
    "model.kind": st.sampled_from(["chat-scene", "patches", "My.model_2"]),
    "model.allow_unexpected": st.booleans(),
    "data.datasets": st.lists(st.sampled_from(DATASETS), min_size=1, unique=True),
    "data.max_objects": st.integers(1, 1000),
    "gap.text_encoder": hub_names | names.map(lambda n: f"./{n}"),
    "gap.heads": st.integers(1, 256),
    "gap.layers": st.integers(1, 100),
    "generation.beams": st.integers(1, 1000),
    "generation.max_new_tokens": st.integers(1, 4096),
    "generation.repetition_penalty": st.floats(0.01, 100) | st.integers(1, 100),
    "generation.length_penalty": st.floats(-5, 5) | st.integers(-5, 5),
    "generation.min_length": st.integers(0, 4096),
    "eval.batch_size": st.integers(1, 4096) | st.just("auto"),
    "eval.engine": st.sampled_from(["fast", "reference"]),
    "eval.reuse_scene": st.booleans(),
    **{key: names.map(lambda n: f"./{n}") for key in PATHS},
}


def nested(flat: dict) -> dict:
    tree: dict = {}
    for key, item in flat.items():
        *sections, leaf = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = item
    return tree


def test_the_strategies_cover_every_key():
    assert set(valid) == {name for name, _ in keys_of(Config)}


@given(st.fixed_dictionaries({}, optional=valid))
@settings(deadline=None, max_examples=150)
def test_valid_configs_load_and_round_trip(flat):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = load_config(write(folder, json.dumps(nested(flat))))
        for key, item in flat.items():
            assert value(config, key) == (str(folder / item) if str(item).startswith("./") else item), key
        assert set(config.origins) == set(flat)
        plain = to_dict(config)
        for text in (json.dumps(plain), json.dumps(plain, ensure_ascii=True, indent=1), yaml.safe_dump(plain)):
            again = load_config(write(folder, text, "again.yaml"))
            assert again == config and to_dict(again) == plain
        overrides = [f"{key}={json.dumps(value(config, key))}" for key in flat]
        assert load_config(write(folder, "{}", "again.yaml"), overrides) == config


keys = st.sampled_from([part for key in valid for part in key.split(".")]) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=4)
trees = st.recursive(
    scalars | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys | st.integers() | st.booleans(), inner, max_size=5)
    ),
    max_leaves=15,
)
sections = st.dictionaries(keys, st.dictionaries(keys, trees, max_size=3) | trees, max_size=3)
yaml_noise = st.text(st.sampled_from(" \n\t:-?[]{},&*!|>'\"%@`#~<=.0123456789aeinfoy_\\\u2028modelruns"), max_size=60)


@given(
    (trees | sections).map(lambda tree: yaml.safe_dump(tree).encode())
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | yaml_noise.map(str.encode)
    | st.binary(max_size=200)
)
@example(b"model: {llm: " + b"9" * 400 + b"}")
@example(b"runs: " + b"a" * 5000)
@example(b"gap: {text_encoder: " + b"a/" * 5000 + b"}")
@settings(deadline=None, max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_gives_a_config_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), content)
        try:
            assert isinstance(load_config(path), Config)
        except Fast3DError as error:
            assert str(error).isprintable() and len(str(error)) < 800


@given(st.text(max_size=60) | st.builds("{}={}".format, st.sampled_from(list(valid)) | keys, yaml_noise | st.text()))
@settings(deadline=None, max_examples=300)
def test_garbage_overrides_give_a_config_or_one_line(override):
    try:
        assert isinstance(load_config(EMBEDDED, [override]), Config)
    except Fast3DError as error:
        assert str(error).isprintable() and len(str(error)) < 800


def test_what_the_embedded_config_names_is_read_from_the_package_and_written_to_the_current_folder(folder):
    here = Path.cwd()
    config = defaults.load_config(EMBEDDED)
    shipped = EMBEDDED.parent / "outputs" / "pred_attn_maps"
    assert config.maps.predicted == shipped
    assert output_path(config, "maps.predicted") == here / "outputs" / "pred_attn_maps"
    (here / "outputs" / "pred_attn_maps").mkdir(parents=True)  # the current folder has its own now
    config = defaults.load_config(EMBEDDED)
    assert config.maps.predicted == output_path(config, "maps.predicted") == here / "outputs" / "pred_attn_maps"
    assert config.maps.targets == EMBEDDED.parent / "outputs" / "infer_attn_maps"
    own = write(folder, "{}")
    assert output_path(defaults.load_config(own), "maps.predicted") == folder / "outputs" / "pred_attn_maps"
