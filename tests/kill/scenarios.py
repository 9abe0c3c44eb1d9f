"""The commands that are killed, each from the states of a folder that it is run in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.kill import world

Command = tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """A command and the state it starts from.

    Attributes:
        name: as in docs/kills.md.
        command: its arguments.
        start: fills the work folder.
        before: commands run there first, and functions that change the folder.
        again: what continues it; None: the same command.
        needs: what has to be around: "server", "demo".
        inside: see `Nursery.run`.
        reader: a command that reads what the killed one writes, with --json: what it tells of a run or a dataset must
            be what it tells of it before or after.
        most: how many kills are tried where they are sampled.
        kinds: that `make kill`, too, tries one operation of each kind only.
    """

    name: str
    command: Command
    start: Callable[[Path], None] = world.miniature
    before: tuple[Command | Callable[[Path], None], ...] = ()
    again: Command | None = None
    needs: str = ""
    inside: str = ""
    reader: Command | None = None
    most: int = 3
    kinds: bool = False


_SHORT = ("--no-meteor", "--batch", "2", "--set", "generation.max_new_tokens=2", "--dataset", "scanqa")
_EVAL = ("eval", *_SHORT)
VANILLA = (*_EVAL, "--dataset", "scan2cap", "--method", "vanilla")
_LIVE = (*_EVAL, "--method", "gap", "--gap", "live", "--layer", "1", "--keep", "15")
OTHER = ("eval", *_SHORT[:-2], "--dataset", "sqa3d", "--set", "generation.beams=1", "--method", "vanilla")
_REPORT = ("report", "--json", "--resamples", "100")
EXTRACT = ("extract", "--split", "val", "--dataset", "scanqa", "--dataset", "sqa3d", "--targets", "st")
EXPORT = (*EXTRACT, "--export", "m")
PREDICT = ("predict", "--maps", "m", "--dataset", "scanqa", "--dataset", "sqa3d")
_MAPS = ("search-alpha", "--alpha", "0.9", "--json", "--maps", "m", "--dataset", "scanqa", "--dataset", "sqa3d")
_TARGETS = ("extract", "--split", "all", "--dataset", "scanqa", "--targets", "st")
TRAIN = ("train-gap", "--targets", "st", "--dataset", "scanqa", "--epochs", "2", "--batch-size", "2", "--out", "go",
          "--save-every", "1")  # fmt: skip
DOWNLOAD = ("download", "roberta", "annotations", "--to", "to", "--accept-licences")
DEMO = ("demo", "--samples", "1")
_SMALL = "tests.kill.world:small_demo"

SCENARIOS = (
    Scenario("eval", VANILLA, reader=_REPORT),
    Scenario("eval, three methods", (*_EVAL, "--method", "random", "--method", "fastv", "--method", "gap",
                                     "--layer", "1", "--keep", "15"), reader=_REPORT),
    Scenario("eval --restart, over a run with other settings", (*VANILLA, "--restart"), before=(OTHER,),
             reader=_REPORT),
    Scenario("eval, of a finished run", VANILLA, before=(VANILLA,), reader=_REPORT),
    Scenario("eval --gap live", _LIVE, reader=_REPORT),
    Scenario("score --name", ("score", "runs/vanilla/predictions", "--no-meteor", "--name", "x"), before=(VANILLA,),
             reader=_REPORT),
    Scenario("score --name, over an earlier one", ("score", "runs/vanilla/predictions", "--no-meteor", "--name", "x"),
             before=(OTHER, ("score", "runs/vanilla/predictions", "--no-meteor", "--name", "x"),
                     (*VANILLA, "--restart")), reader=_REPORT),
    Scenario("extract", EXTRACT),
    Scenario("extract --restart, over another seed's", (*EXTRACT, "--restart"), before=((*EXTRACT, "--seed", "3"),)),
    Scenario("extract, more of a dataset", EXTRACT, before=((*EXTRACT, "--limit", "1"),)),
    Scenario("extract --export", EXPORT, reader=_MAPS),
    Scenario("extract --export --restart, over another's maps", (*EXPORT, "--restart"), start=world.foreign_maps,
             reader=_MAPS),
    Scenario("predict", PREDICT, reader=_MAPS),
    Scenario("predict --split all", (*PREDICT, "--split", "all"), reader=_MAPS),
    Scenario("predict --restart, over another's maps", (*PREDICT, "--restart"), start=world.foreign_maps,
             reader=_MAPS),
    Scenario("predict, by another checkpoint", PREDICT, before=(PREDICT, world.other_checkpoint), reader=_MAPS),
    Scenario("train-gap", TRAIN, before=(_TARGETS,), again=(*TRAIN, "--resume")),
    Scenario("train-gap --resume", (*TRAIN, "--resume"), before=(_TARGETS,)),
    Scenario("train-gap --restart, over another seed's", (*TRAIN, "--restart"),
             before=(_TARGETS, (*TRAIN, "--seed", "3"))),
    Scenario("train-gap --resume --export", (*TRAIN, "--resume", "--export", "gap.pth"),
             before=(_TARGETS, (*TRAIN,))),
    Scenario("search-alpha", ("search-alpha", "--target", "50")),
    Scenario("search-alpha, over an earlier one", ("search-alpha", "--target", "50"),
             before=(("search-alpha", "--target", "30"),)),
    Scenario("convert", ("convert",)),
    Scenario("convert, of newer files", ("convert",), before=(("convert",), world.newer_features)),
    Scenario("prepare", ("prepare", "raw"), start=world.raw_releases),
    Scenario("prepare --replace, over other files", ("prepare", "raw", "--replace"), start=world.other_annotations),
    Scenario("download", DOWNLOAD, start=world.nothing, needs="server", inside="tests.kill.world:use_server"),
    Scenario("download, beside settings of the user's", DOWNLOAD, start=world.settings_of_the_user, needs="server",
             inside="tests.kill.world:use_server"),
    Scenario("report --html", ("report", "--resamples", "100", "--html", "page.html"), before=(VANILLA,)),
    Scenario("report --plot", ("report", "--resamples", "100", "--plot", "figure.svg"), start=world.finished_runs),
    Scenario("demo", DEMO, needs="demo", most=2),
    Scenario("demo --restart, over an earlier one", ("demo", "--samples", "2", "--restart"), before=(DEMO,),
             needs="demo", most=2),
    Scenario("demo --from-scratch", (*DEMO, "--from-scratch"), needs="demo", most=1, kinds=True),
    Scenario("download demo, to the cache", ("download", "demo"), needs="weights", inside=_SMALL),
    Scenario("download demo --to", ("download", "demo", "--to", "here"), needs="weights", inside=_SMALL, most=2),
)  # fmt: skip
