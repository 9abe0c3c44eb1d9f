"""The one YAML file behind every command: its schema, its defaults, and errors that name the key, the file and the
nearest valid name.

The dataclasses below are the schema. A key is a field: its type, default, meaning and bounds are written there and
nowhere else, so adding a key is adding a field, and adding a section is adding a dataclass and a field of `Config`.

A relative path is relative to the folder of the file that holds it, or, in a `--set` override, to the current folder,
where the user types. A default path counts as written in the file. One exception: in the config of the embedded demo
(`Config.embedded`), what commands write is relative to the current folder, because a cache is no place for
results (`output_path`); what the demo has is read until the current folder has its own. `~` is
expanded. Whether a path exists is checked only when it is used (`need_path`), so that a config may name files which a
later step makes.
"""

# ruff: noqa: RUF009 (`setting` is `dataclasses.field` with names for its metadata)

import dataclasses
import difflib
import functools
import json
import math
import operator
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from fast3d_core.errors import DataError, UsageError
from fast3d_core.fields import setting
from fast3d_core.files.checkpoints import checkpoint_file
from fast3d_core.files.files import need, need_file
from fast3d_core.files.hub_cache import check_model_folder
from fast3d_core.llm.generation import GenerationConfig
from fast3d_core.registry import BENCHMARKS
from fast3d_core.text import printable

CACHE = Path(os.path.expanduser(os.environ.get("FAST3D_CACHE") or "~/.cache/fast3d")).absolute()  # noqa: PTH111 (never raises)
"""Where what is made or downloaded once is kept: $FAST3D_CACHE, else ~/.cache/fast3d."""

NAME = "fast3d.yaml"
"""A config's name, in the current folder and in the embedded demo's."""

DEMO = "demo"
"""What the embedded demo's folder in the cache is called, with a stamp behind it; see `demo.demo_folder`."""

MAX_BYTES, MAX_VALUES = 1_000_000, 10_000
"""A file with more is not a config; PyYAML would take half a minute over a crowded megabyte."""

DATASETS = tuple(BENCHMARKS.builtin)
"""The five published benchmarks, in the order they are run and reported; other packages may add more."""


@dataclass(frozen=True)
class ModelConfig:
    """the scene model: an LLM and the Chat-Scene checkpoint on top of it"""

    kind: str = setting(
        "chat-scene",
        "scene model: chat-scene, or one that an installed package adds",
        form=(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "a name, such as chat-scene"),
    )
    llm: Path = setting(Path("llm/vicuna-7b-v1.5"), "folder of the LLaMA weights and tokenizer (Hugging Face layout)")
    checkpoint: Path = setting(
        Path("ckpt_01_3446.pth"), "Chat-Scene checkpoint as released: LoRA, projectors, embeddings"
    )
    lora_alpha: float = setting(
        16, "LoRA scale is lora_alpha / rank; the checkpoint does not tell", above=0, at_most=10_000
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting("bfloat16", "number type of weights and activations")
    device: str = setting(
        "auto",
        "auto (CUDA if present), cpu, cuda or cuda:N",
        form=(r"auto|cpu|cuda(:[0-9]{1,3})?", "auto, cpu, cuda or cuda:N"),
    )
    allow_unexpected: bool = setting(False, "load a checkpoint that holds tensors of unknown name")


@dataclass(frozen=True)
class DataConfig:
    """the benchmarks"""

    annotations: Path = setting(Path("annotations"), "folder of the released annotation and feature files")
    datasets: tuple[str, ...] = setting(DATASETS, "benchmarks to run, in this order", choices=BENCHMARKS.names)
    max_objects: int = setting(100, "object slots per scene, three visual tokens each", at_least=1, at_most=1000)


@dataclass(frozen=True)
class MapsConfig:
    """attention maps over the objects, one file per dataset"""

    predicted: Path = setting(Path("outputs/pred_attn_maps"), "folder of the maps that GAP predicted", written=True)
    targets: Path = setting(
        Path("outputs/infer_attn_maps"), "folder of the maps extracted from the LLM, GAP's targets", written=True
    )


@dataclass(frozen=True)
class GapConfig:
    """the network that predicts attention maps"""

    text_encoder: Path | str = setting("FacebookAI/roberta-base", "folder, or else a Hugging Face model name")
    checkpoint: Path = setting(
        Path("outputs/gap/checkpoint_best.safetensors"), "GAP weights (.safetensors, or .pth)", written=True
    )
    heads: int = setting(
        12, "attention heads of a new network, and where a checkpoint does not tell", at_least=1, at_most=256
    )
    layers: int = setting(4, "decoder layers of a new network", at_least=1, at_most=100)


@dataclass(frozen=True)
class EvalConfig:
    """the evaluation run"""

    batch_size: int | Literal["auto"] = setting(
        32, "samples per batch, or auto: as many as the memory holds", at_least=1, at_most=4096
    )
    engine: Literal["fast", "reference"] = setting("fast", "fast drops tokens, reference masks them as published")
    reuse_scene: bool = setting(False, "fast engine: read a scene once for all questions about it; not as published")


@dataclass(frozen=True)
class Config:
    """All settings of a command. Two configs are equal when their settings are, wherever these came from.

    `source` is the absolute path of the file, `embedded` whether it is that of the embedded demo, and
    `origins` names the file or `--set` for each key that was set.
    """

    source: Path = field(compare=False)
    embedded: bool = field(compare=False)
    origins: Mapping[str, str] = field(compare=False, repr=False)
    model: ModelConfig
    data: DataConfig
    maps: MapsConfig
    gap: GapConfig
    generation: GenerationConfig
    eval: EvalConfig
    runs: Path = setting(Path("runs"), "folder of the results, one folder per run", written=True)


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), said: Callable[[str], None] = lambda _: None
) -> Config:
    """The config in `path`, else in `./fast3d.yaml` if it exists, else the embedded demo's, with `overrides` on top.

    The demo's files are written when they are asked for the first time; `said` is told, as that takes some seconds.

    An override is `key.sub=value`; the value is read as YAML, its relative paths are relative to the current folder,
    and the last one wins. Raises `DataError` for a file that is missing, unreadable, or not YAML of the plain kind
    (one mapping; no duplicate keys, anchors, aliases or tags; at most 1 MB), `UsageError` for a key or value that the
    schema does not have.
    """
    if path is None:
        path = Path(NAME)
        if not os.path.lexists(path):
            from fast3d_core.demo import demo_folder, ensure_demo

            path = demo_folder() / NAME
            ensure_demo(path.parent, said)
    source = path.absolute()
    embedded = _is_of_the_demo(source)
    keys = dict(_keys(Config))
    place, here = printable(str(path)), Path.cwd()

    def base(name: str, value: Any) -> Path:
        if not (embedded and keys[name].metadata["written"] and isinstance(value, str)):
            return source.parent
        shipped = (source.parent / value).exists() and not (here / value).exists()
        return source.parent if shipped else here

    found = {name: _plain(key.default) for name, key in keys.items()}
    origins = {}
    for name, value in _flatten(_parse_file(path, place), Config, place):
        found[name] = value
        origins[name] = place
    settings = {name: _checked(name, keys[name], value, place, base(name, value)) for name, value in found.items()}
    for override in overrides:
        for name, value in _flatten(_parse_override(override), Config, "--set"):
            settings[name] = _checked(name, keys[name], value, "--set", here)
            origins[name] = "--set"
    return _build(Config, settings, source=source, embedded=embedded, origins=origins)


def _is_of_the_demo(source: Path) -> bool:
    """Whether a config is the embedded demo's, of whatever release, or that of the user's own demo in the cache."""
    real = Path(os.path.realpath(source))  # Path.resolve raises for a loop of links
    if real == Path(os.path.realpath(CACHE / DEMO / NAME)):
        return True
    folder = real.parent
    ours = folder.parent == Path(os.path.realpath(CACHE)) and re.fullmatch(f"{DEMO}-[0-9a-f]{{16}}", folder.name)
    return bool(ours) and real.name == NAME


def need_path(config: Config, key: str) -> Path:
    """The file or folder that `key` (such as "model.checkpoint") names.

    Raises `DataError` when it does not exist, naming the key, where it was set, and the nearest name in its folder.
    """
    path = functools.reduce(getattr, key.split("."), config)
    if not isinstance(path, Path):
        raise TypeError(f"{key} holds no path: {path!r}")
    origin = config.origins.get(key)
    what = f"{key} in {origin}" if origin else f"{key} (default; not set in {printable(str(config.source))})"
    if key == "model.llm":
        check_model_folder(path, what)
    return need(path, what)


def need_checkpoint(config: Config, key: str) -> Path:
    """The file that `key` ("model.checkpoint" or "gap.checkpoint") names, or the one file of weights in such a folder.

    Raises `DataError` as `need_path`, and where a folder holds no or several such files.
    """
    return checkpoint_file(need_path(config, key), key)


def output_path(config: Config, key: str) -> Path:
    """The file or folder that `key` (such as "maps.predicted") names, for writing: never inside the package."""
    path = functools.reduce(getattr, key.split("."), config)
    assert isinstance(path, Path)
    shipped = config.source.parent
    return Path.cwd() / path.relative_to(shipped) if config.embedded and path.is_relative_to(shipped) else path


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain nested values, paths as text, ready for JSON or YAML; a file of them loads back equal."""

    def plain(section: Any) -> dict[str, Any]:
        values = {f.name: getattr(section, f.name) for f in _schema(type(section))}
        return {name: plain(v) if dataclasses.is_dataclass(v) else _plain(v) for name, v in values.items()}

    return plain(config)


def default_yaml() -> str:
    """The whole schema as YAML: every key at its default with its meaning beside it. A file of it is a valid config."""
    return "# Relative paths are relative to the folder of this file.\n" + "\n".join(_document(Config, ""))


def _document(cls: type, indent: str) -> Iterator[str]:
    """The lines of `default_yaml` for one section, comments aligned."""
    sections = [f for f in _schema(cls) if dataclasses.is_dataclass(f.type)]
    keys = [f for f in _schema(cls) if not dataclasses.is_dataclass(f.type)]
    for f in sections:
        yield f"{indent}{f.name}:  # {f.type.__doc__}"
        yield from _document(typing.cast(type, f.type), indent + "  ")
    texts = [f"{indent}{f.name}: {_yaml_text(_plain(f.default))}" for f in keys]
    width = max(map(len, texts), default=0)
    for f, text in zip(keys, texts, strict=True):
        yield f"{text:{width}}  # {_meaning(f)}"
    if not indent:
        yield ""


def _meaning(key: "dataclasses.Field[Any]") -> str:
    """The comment beside a key: its meaning, then its bounds or choices."""
    least, most = key.metadata["at_least"], key.metadata["at_most"]
    both = least is not None and most is not None
    notes = [f"{least} to {most}"] if both else [f"{words} {bound}" for words, bound, _ in _bounds(key)]
    if typing.get_origin(key.type) is Literal:
        notes.append(", ".join(typing.get_args(key.type)))
    return f"{key.metadata['doc']} ({'; '.join(notes)})" if notes else key.metadata["doc"]


def _yaml_text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


# --- the schema, read off the dataclasses


def _schema(cls: type) -> list["dataclasses.Field[Any]"]:
    """The fields of `cls` that are keys or sections."""
    return [f for f in dataclasses.fields(cls) if dataclasses.is_dataclass(f.type) or "doc" in f.metadata]


def _keys(cls: type, prefix: str = "") -> Iterator[tuple[str, "dataclasses.Field[Any]"]]:
    """Every key under `cls` with its full dotted name."""
    for f in _schema(cls):
        if dataclasses.is_dataclass(f.type):
            yield from _keys(typing.cast(type, f.type), f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f


def _build(cls: type, settings: Mapping[str, Any], prefix: str = "", **extra: Any) -> Any:
    """`cls` from the flat `settings`; `extra` fills the fields that are no keys."""
    for f in _schema(cls):
        if dataclasses.is_dataclass(f.type):
            extra[f.name] = _build(typing.cast(type, f.type), settings, f"{prefix}{f.name}.")
        else:
            extra[f.name] = settings[prefix + f.name]
    return cls(**extra)


def _flatten(raw: Any, cls: type, place: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys in `raw` by full dotted name; `UsageError` for one that the schema does not have."""
    if not isinstance(raw, dict):
        what = prefix.removesuffix(".") or "a config"
        raise UsageError(f"{place}: {what} must be a mapping of keys to values, not {_show(raw)}")
    known = {f.name: f for f in _schema(cls)}
    for name, value in raw.items():
        if name not in known:
            raise UsageError(_unknown(prefix + (name if isinstance(name, str) else _show(name)), place, prefix, known))
        if dataclasses.is_dataclass(known[name].type):
            yield from _flatten(value, typing.cast(type, known[name].type), place, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _unknown(full: str, place: str, prefix: str, known: Mapping[str, Any]) -> str:
    """The error for an unknown key: the nearest name by leaf (a key in the wrong section), then by spelling."""
    message = f"unknown key {_show(full)} in {place}"
    names = [name for name, _ in _keys(Config)]
    if full in names:  # a dotted name used as one key
        section, leaf = full.rsplit(".", 1)
        return f"{message}; write {leaf} as a key under {section}"
    near = _nearest_key(full[:100], prefix, list(known), names)  # difflib's time grows with the square of the length
    if near:
        return f'{message}; did you mean "{near}"?'
    return f"{message}; known here: {', '.join(prefix + name for name in known)}"


def _nearest_key(word: str, prefix: str, siblings: Sequence[str], names: Sequence[str]) -> str | None:
    """Last parts are compared, as a shared section would make any two names look alike: a right name in the wrong
    section first, then the nearest in the same section, then the nearest anywhere."""

    def last(name: str) -> str:
        return name.rpartition(".")[2]

    here = [prefix + name for name in difflib.get_close_matches(last(word), siblings, n=1)]
    best = difflib.get_close_matches(last(word), [last(name) for name in names], n=1)
    there = difflib.get_close_matches(word, [name for name in names if last(name) in best], n=1, cutoff=0)
    return next(iter(there + here if last(word) in best else here + there), None)


# --- values


def _checked(name: str, key: "dataclasses.Field[Any]", value: Any, place: str, base: Path) -> Any:
    """`value` in the type of `key`, paths absolute under `base`; `UsageError` when it is of another type or range."""
    try:
        if key.type is bool:
            if not isinstance(value, bool):
                raise _WrongError("true or false", value)
            return value
        if key.type in (int, float):
            return _number(key, typing.cast(type, key.type), value)
        if int in typing.get_args(key.type):
            return _number_or_word(key, value)
        if key.type is str:
            pattern, expected = key.metadata["form"]
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise _WrongError(expected, value)
            return value
        if typing.get_origin(key.type) is Literal:
            choices = typing.get_args(key.type)
            return _one_of(choices, value, f"one of {', '.join(choices)}")
        if typing.get_origin(key.type) is tuple:
            return _names(key.metadata["choices"](), value)
        return _path(key, value, base)
    except _WrongError as wrong:
        raise UsageError(f"{place}: {name} must be {wrong}") from None


class _WrongError(Exception):
    """Reads "<what is expected>, not <what was found><hint>"."""

    def __init__(self, expected: str, found: Any, hint: str = "") -> None:
        super().__init__(f"{expected}, not {_show(found)}{hint}")


def _number_or_word(key: "dataclasses.Field[Any]", value: Any) -> float | str:
    """An integer, or one of the words that may stand in its place."""
    kind, words = typing.get_args(key.type)
    if value in typing.get_args(words):
        return value
    if isinstance(value, str):
        raise _WrongError(f"an integer or {' or '.join(typing.get_args(words))}", value)
    return _number(key, kind, value)


def _number(key: "dataclasses.Field[Any]", kind: type, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise _WrongError("a number" if kind is float else "an integer", value)
    if not math.isfinite(value):
        raise _WrongError("a finite number", value)
    for words, bound, holds in _bounds(key):
        if not holds(value, bound):
            raise _WrongError(f"{words} {bound}", value)
    return kind(value)


def _bounds(key: "dataclasses.Field[Any]") -> list[tuple[str, float, Callable[[float, float], bool]]]:
    """The bounds of a number: in words, the bound, and the comparison that must hold."""
    known = (("at_least", operator.ge), ("above", operator.gt), ("at_most", operator.le))
    bounds = [(name.replace("_", " "), key.metadata[name], holds) for name, holds in known]
    return [(words, bound, holds) for words, bound, holds in bounds if bound is not None]


def _one_of(choices: Sequence[str], value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise _WrongError(expected, value)
    if value not in choices:
        near = difflib.get_close_matches(value[:100], choices, n=1)
        raise _WrongError(expected, value, f'; did you mean "{near[0]}"?' if near else "")
    return value


def _names(choices: Sequence[str], value: Any) -> tuple[str, ...]:
    expected = f"a list of names out of {', '.join(choices)}"
    if not isinstance(value, list) or not value:
        raise _WrongError(expected, value, f"; write [{value}]" if value in choices else "")
    for i, item in enumerate(value):
        _one_of(choices, item, expected)
        if item in value[:i]:
            raise _WrongError("a list without repeats", value)
    return tuple(value)


def _path(key: "dataclasses.Field[Any]", value: Any, base: Path) -> Path | str:
    """A path under `base`. Where a hub name may stand too, a text is a path when such a folder exists or when it is
    written like one, so that a missing folder is reported as such and not asked of the hub."""
    sure = key.type is Path
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _WrongError("a path" if sure else "a folder or a Hugging Face model name", value)
    try:
        path = base / (Path(value).expanduser() if value.startswith("~") else value)  # not ./~, which Path shortens
    except RuntimeError:
        raise _WrongError("under a home folder that exists", value) from None
    # Path.is_dir would raise for a name that is too long
    is_path = sure or os.path.isdir(path) or re.match(r"/|~|\.\.?(/|$)", value)  # noqa: PTH112
    return path if is_path else value


def _plain(value: Any) -> Any:
    """A setting as YAML and JSON know it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    """A value for an error message: one line, short, nothing that moves a terminal's cursor."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return printable(text if len(text) <= 80 else text[:77] + "...")


# --- YAML


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without what a config does not need and an attacker does: anchors, aliases (which grow a
    small file without bound), tags, merges, dates, base-60 numbers; duplicate keys are errors. Numbers are written as
    in JSON, 1e-05 included, which PyYAML alone takes for text."""

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases (& and *) are not allowed; write the value out, or in quotes",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags (!) are not allowed", problem_mark=event.start_mark)
        self.nodes += 1
        if self.nodes > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"duplicate key {_show(key.value)}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return node

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        try:  # JSON writes a character beyond U+FFFF as two escapes, which PyYAML leaves apart
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            problem = "half of a surrogate pair"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in rules if tag.endswith((":null", ":bool"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Longer numbers stay text: Python's time for reading an integer grows with the square of its digits.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:(?:[0-9]{1,18}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,4})?|[0-9]{1,18}[eE][-+]?[0-9]{1,4})$"
    ),
    list("-+.0123456789"),
)


def _read(path: Path) -> bytes:
    place = printable(str(path))
    need_file(path, "--config")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{place}: larger than {MAX_BYTES // 10**6} MB, so it cannot be a config")
    return content


def _parse_file(path: Path, place: str) -> Any:
    try:
        content = _read(path).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not a valid config: not UTF-8 text (byte {error.start})") from None
    try:
        value = _parse(content)
    except ValueError as error:
        raise DataError(f"{place}: not a valid config: {error}") from None
    if value is None:
        raise DataError(f"{place}: not a valid config: it holds no settings ({{}} is the empty config)")
    return value


def _parse_override(override: str) -> Any:
    """`key.sub=value` as the mapping that a file would hold."""
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError(f"--set {_show(override)}: write it as key.sub=value, such as generation.beams=1")
    try:
        value = _parse(text)
    except ValueError as error:
        raise UsageError(f"--set: the value of {printable(name[:80])} is not valid YAML: {error}") from None
    return functools.reduce(lambda inner, part: {part: inner}, reversed(name.split(".")), value)


def _parse(text: str) -> Any:
    """The one YAML document in `text`; `ValueError` with one printable line when it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # _Loader is the safe loader with less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(printable(error.problem or error.context or "cannot be parsed") + line) from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"{error.reason} (character {error.position})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
