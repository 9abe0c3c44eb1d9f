"""What there is to download: sources, licences, and where it goes.

Repositories, links and licences are those that the authors publish; where a size or a licence is not stated there, this
says so. Sizes and checksums of files at Hugging Face are asked for when they are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fast3d_core.download.drive import DriveFile, DriveFolder, DriveZip
from fast3d_core.download.hub import HubFolder
from fast3d_core.download.source import Source
from fast3d_core.errors import UsageError


@dataclass(frozen=True)
class Licence:
    """Terms that come with an item: of what, which, and where to read about them."""

    of: str
    terms: str
    link: str

    def __str__(self) -> str:
        return f"{self.of}: {self.terms}"


@dataclass(frozen=True)
class Item:
    """Something to download.

    Attributes:
        name: as the command line knows it.
        what: what it is.
        sources: tried in this order; the next one only where one does not have it or does not give it.
        licences: of all its parts.
        size: what is known about its size before its source is asked.
        folder: where its files go, under the folder of the download.
        proof: a glob in `folder` that finds, where no source lists its files, what is there.
        key, value: the config key that names it, and its path under the folder of the download.
    """

    name: str
    what: str
    sources: tuple[Source, ...]
    licences: tuple[Licence, ...]
    size: str
    folder: str
    proof: str
    key: str
    value: str


_CHAT_SCENE = Licence("Chat-Scene", "MIT", "https://github.com/ZzZZCHS/Chat-Scene")
_FAST3D = Licence(
    "Fast3D's files", "no licence stated, so all rights are with its authors", "https://arxiv.org/abs/2507.09334"
)
_ANNOTATIONS = (
    _CHAT_SCENE,
    Licence(
        "ScanNet", "non-commercial research terms; ask ScanNet for permission", "https://github.com/ScanNet/ScanNet"
    ),
    Licence("ScanRefer", "CC BY-NC-SA 3.0", "https://github.com/daveredrum/ScanRefer"),
    Licence("ScanQA", "CC BY-NC-SA 3.0", "https://github.com/ATR-DBI/ScanQA"),
    Licence("SQA3D", "CC BY 4.0", "https://github.com/SilongYong/SQA3D"),
    Licence("Multi3DRefer", "MIT", "https://github.com/3dlg-hcvc/M3DRef-CLIP"),
)
_WEIGHTS = ("pytorch_model*.bin*", "model*.safetensors*")
_FAST3D_FOLDER = "16yQARetNqhp8hos2PgtHpnC5dMrCXnYe"
_ASKED = "not known before Hugging Face is asked"
_NOT_KNOWN = "not published"

ITEMS: dict[str, Item] = {
    item.name: item
    for item in (
        Item(
            name="vicuna",
            what="Vicuna-7B v1.5, the LLM",
            sources=(
                HubFolder(
                    "lmsys/vicuna-7b-v1.5",
                    "model",
                    keep=("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", *_WEIGHTS),
                ),
            ),
            licences=(Licence("Vicuna-7B v1.5", "LLaMA 2 licence", "https://huggingface.co/lmsys/vicuna-7b-v1.5"),),
            size=_ASKED,
            folder="llm/vicuna-7b-v1.5",
            proof="config.json",
            key="model.llm",
            value="llm/vicuna-7b-v1.5",
        ),
        Item(
            name="roberta",
            what="RoBERTa-base, GAP's text encoder",
            sources=(
                HubFolder(
                    "FacebookAI/roberta-base",
                    "model",
                    keep=(
                        "config.json",
                        "vocab.json",
                        "merges.txt",
                        "tokenizer*.json",
                        "special_tokens_map.json",
                        *_WEIGHTS,
                    ),
                ),
            ),
            licences=(Licence("RoBERTa-base", "MIT", "https://huggingface.co/FacebookAI/roberta-base"),),
            size=_ASKED,
            folder="text_encoder/roberta-base",
            proof="config.json",
            key="gap.text_encoder",
            value="text_encoder/roberta-base",
        ),
        Item(
            name="annotations",
            what="samples, boxes and features of the five benchmarks",
            sources=(
                HubFolder("ZzZZCHS/Chat-Scene", "dataset", folder="annotations", keep=("*",)),
                DriveZip("1aBu4nQej-Cofe7T2PX_lWP6fm_lDddHa"),
                DriveFolder("1iwVFUkvveehvwGcAnJK3EwLxBt5ggR2c"),
            ),
            licences=_ANNOTATIONS,
            size="part of about 7 GB",  # of the whole data set at Hugging Face
            folder="annotations",
            proof="*_val.json",
            key="data.annotations",
            value="annotations",
        ),
        Item(
            name="chat-scene",
            what="Chat-Scene's checkpoint",
            sources=(
                HubFolder("ZzZZCHS/Chat-Scene", "dataset", folder="pretrained", keep=("ckpt_01_3446.pth",)),
                DriveFile("1whwCaq0YfPGWX1VxB_gVn_BoLYasc_nb", "ckpt_01_3446.pth"),
                DriveFile("1Ziz7Be9l6MEbn3Qmlyr9gv42C0iJQgAn", "ckpt_01_3446.pth"),
            ),
            licences=(_CHAT_SCENE,),
            size="about 1.3 GB",
            folder=".",
            proof="ckpt_01_3446.pth",
            key="model.checkpoint",
            value="ckpt_01_3446.pth",
        ),
        Item(
            name="attention-maps",
            what="attention maps extracted from the LLM, GAP's targets",
            sources=(DriveFolder(_FAST3D_FOLDER, inside="infer_attn_maps"),),
            licences=(_FAST3D,),
            size=_NOT_KNOWN,
            folder="outputs/infer_attn_maps",
            proof="infer_attn_maps_*.pt",
            key="maps.targets",
            value="outputs/infer_attn_maps",
        ),
        Item(
            name="gap",
            what="the GAP network that Fast3D published",
            sources=(DriveFolder(_FAST3D_FOLDER, inside="trained_gap_network", only="checkpoint_best.pth"),),
            licences=(_FAST3D,),
            size=_NOT_KNOWN,
            folder="outputs/gap",
            proof="checkpoint_best.pth",
            key="gap.checkpoint",
            value="outputs/gap/checkpoint_best.pth",
        ),
        Item(
            name="predicted-maps",
            what="attention maps that Fast3D's GAP network predicted",
            sources=(DriveFolder(_FAST3D_FOLDER, inside="pred_attn_maps"),),
            licences=(_FAST3D,),
            size=_NOT_KNOWN,
            folder="outputs/pred_attn_maps",
            proof="infer_attn_maps_*.pt",
            key="maps.predicted",
            value="outputs/pred_attn_maps",
        ),
    )
}
"""What there is, in the order in which it is listed and fetched."""


def chosen(names: Sequence[str]) -> list[Item]:
    """The items of these names, each once and in the catalogue's order; "all" is all of them.

    Raises `UsageError` for a name that there is not.
    """
    for name in names:
        if name not in (*ITEMS, "all"):
            raise UsageError(f"there is no {name[:80]!r} to download; choose from demo, {', '.join(ITEMS)}, all")
    return [item for item in ITEMS.values() if "all" in names or item.name in names]
