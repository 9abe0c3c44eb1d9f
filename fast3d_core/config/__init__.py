"""The one YAML file behind every command: its schema, its defaults, and errors that name the key, the file and the
nearest valid name.

The dataclasses in `schema.py` are the schema. A key is a field: its type, default, meaning and bounds are written there
and nowhere else, so adding a key is adding a field, and adding a section is adding a dataclass and a field of `Config`.

A relative path is relative to the folder of the file that holds it, or, in a `--set` override, to the current folder,
where the user types. A default path counts as written in the file. One exception: in a config that came with the
program (`Config.embedded`), what commands write is relative to the current folder, because a cache is no place for
results (`output_path`); what was shipped is read until the current folder has its own. `~` is expanded. Whether a path
exists is checked only when it is used (`need_path`), so that a config may name files which a later step makes.

This package knows no demo: `fast3d_core.defaults` says which config a command takes where none is named.
"""

from fast3d_core.config.document import default_yaml, to_dict
from fast3d_core.config.loading import load_config
from fast3d_core.config.paths import need_checkpoint, need_path, output_path
from fast3d_core.config.schema import (
    DATASETS,
    Config,
    DataConfig,
    EvalConfig,
    GapConfig,
    GenerationConfig,
    MapsConfig,
    ModelConfig,
)

NAME = "fast3d.yaml"
"""What a config is called in the current folder and in the demo's."""

__all__ = [
    "DATASETS",
    "NAME",
    "Config",
    "DataConfig",
    "EvalConfig",
    "GapConfig",
    "GenerationConfig",
    "MapsConfig",
    "ModelConfig",
    "default_yaml",
    "load_config",
    "need_checkpoint",
    "need_path",
    "output_path",
    "to_dict",
]
