"""fast3d doctor on hostile files: it tells what is wrong with them, and none of its own checks fails."""

import random
from functools import partial
from pathlib import Path

from fast3d_core.config import load_config
from fast3d_core.doctor import Options, examine
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import replace
from tests.fuzz.test_readers import TIMES

FILES = (
    "annotations/scanqa_val.json",
    "annotations/scannet_mask3d_uni3d_feats.pt",
    "annotations/scannet_val_attributes.pt",
    "ckpt_01_3446.pth",
    "llm/config.json",
    "llm/tokenizer.model",
    "llm/model.safetensors",
    "gap/roberta_tiny/config.json",
    "outputs/pred_attn_maps/infer_attn_maps_val_scanqa.pt",
)


def test_no_check_fails(folder: Path) -> None:
    whole = {name: (folder / name).read_bytes() for name in FILES}
    told = set()
    for case in range(TIMES * 45):
        name = FILES[case % len(FILES)]
        replace(folder / name, mutate(random.Random(f"doctor {case}"), name, whole[name]))
        overrides = [f"runs={folder / 'examined'}", "data.datasets=[scanqa]"]
        findings = list(examine(Options(partial(load_config, folder / "fast3d.yaml", overrides))))
        assert not [one.what for one in findings if "the check itself failed" in one.what], case
        assert all(one.what.isprintable() and len(one.what) < 1000 for one in findings)
        told |= {(name, one.what) for one in findings if one.status == "error"}
        replace(folder / name, whole[name])
    assert {name for name, _ in told} == set(FILES) and len(told) > 2 * len(FILES)
