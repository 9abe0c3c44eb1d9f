"""`fast3d ask`: a question of one's own to a scene, by one method or several side by side."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from fast3d_cli.ask_view import list_scenes, show
from fast3d_cli.console import err, error, note, print_json_line
from fast3d_cli.options import (
    BUDGET,
    ConfigOption,
    JsonOption,
    KeepOption,
    LayerOption,
    RatioOption,
    SetOption,
    load,
    note_text_encoder,
)
from fast3d_cli.pages import note_page, open_page
from fast3d_cli.progress import RunProgress
from fast3d_core.errors import DataError, Fast3DError, UsageError

if TYPE_CHECKING:
    from fast3d_core.asking.asker import Asker
    from fast3d_core.asking.reply import Reply
    from fast3d_core.pruning import Pruner


def ask(
    context: typer.Context,
    question: Annotated[
        str | None, typer.Argument(help="What to ask, such as 'what is left of the bed?'.", show_default=False)
    ] = None,
    scene: Annotated[
        str | None, typer.Option("--scene", "-s", help="The scene to ask about; list: all scenes with their objects.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="{methods}. Default: {default}. Repeatable.", show_default=False),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="All methods, side by side.")] = False,
    task: Annotated[
        str,
        typer.Option(
            help="How the text is worded for the model, as the datasets do: qa (a question, answered in a word or "
            "phrase), ground (it describes an object), ground-all (objects), caption (it names an object to describe), "
            "or plain: as typed."
        ),
    ] = "qa",
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Read questions from stdin, a line each; all stays loaded."),
    ] = False,
    reuse_scene: Annotated[
        bool,
        typer.Option(
            "--reuse-scene", help="Read a scene once for all questions about it. Not the published computation."
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a page that shows the room in 3D, what was kept and what was answered, and open it. "
            "With --interactive: of the last question.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        int | None, typer.Option(help="Published setting: 35, 65 or 90 percent pruned.", rich_help_panel=BUDGET)
    ] = None,
    layer: LayerOption = None,
    keep: KeepOption = None,
    ratio: RatioOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a scene something: the answer, the objects kept for it, what that saved, and the time of each stage.

    Methods that follow a map have it predicted by `gap.checkpoint` for this question. The fast engine answers, as
    `fast3d eval` would at batch size 1.
    """
    settings = load(config, [*(set_ or []), *(["eval.reuse_scene=true"] if reuse_scene else [])])
    if scene is None:
        raise UsageError("name a scene with --scene; `fast3d ask --scene list` shows what there is")
    if question is None and not interactive and scene != "list":
        raise UsageError("ask something, such as `fast3d ask 'how many chairs are there?' --scene NAME`")
    if html is not None and scene == "list":
        raise UsageError("--html shows a question about a scene; --scene list has none")
    if interactive and sys.stdin is None:
        raise UsageError("--interactive reads questions from stdin, which is closed")
    if html is not None:
        from fast3d_core.report.html import check_html

        check_html(html)
    if compare and method:
        raise UsageError("--compare takes all methods; for some of them, give --method several times")
    from fast3d_core.asking.asker import Asker
    from fast3d_core.asking.methods import choose_pruners
    from fast3d_core.asking.wording import dataset_of
    from fast3d_core.pruning import DEFAULT, METHODS
    from fast3d_core.pruning.options import MethodOptions

    dataset_of(task)  # raises for a task that there is not
    asker = Asker(settings, RunProgress())
    if scene == "list":
        list_scenes(asker.rooms, json)
        return
    asker.rooms.scene(scene)  # refuses one that is not there before anything is loaded
    given = dict(context.obj or {})
    alphas = [given.pop("alpha")] if "alpha" in given else []
    options = MethodOptions([] if preset is None else [preset], layer, keep, ratio, alphas, given)

    def build(names: Sequence[str]) -> "list[Pruner]":
        return choose_pruners(settings, names, options.taken_by(names) if interactive else options, task, note)

    pruners = build(list(METHODS) if compare else method or [DEFAULT])
    if any(pruner.needs_map for pruner in pruners):
        note_text_encoder(settings)
    if settings.eval.reuse_scene:
        note("a scene is read once for all questions about it, which is not the published computation")
    answerer = _Answerer(asker, task, json, html)
    if question is not None:
        answerer.answer(question, scene, pruners, line=interactive)
    if interactive:
        try:
            _Session(asker, scene, pruners, build, answerer, json).run()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


class _Answerer:
    """Asks, and shows the answers: on stdout, and on a page where there is to be one."""

    def __init__(self, asker: "Asker", task: str, json: bool, html: Path | None):
        self._asker, self._task, self._json, self._html = asker, task, json, html
        self._opened = False

    def answer(self, question: str, scene: str, pruners: "Sequence[Pruner]", line: bool = False) -> None:
        """`line`: JSON on one line."""
        replies = [self._asker.ask(question, scene, pruner, self._task) for pruner in pruners]
        show(replies, self._json, line)
        if self._html is None:
            return
        try:
            self._write(self._html, list(zip(pruners, replies, strict=True)))
        except DataError as problem:
            if not line:
                raise
            error(str(problem))  # a session's answer has been shown, and goes on without the page

    def _write(self, path: Path, asked: "list[tuple[Pruner, Reply]]") -> None:
        from fast3d_core.report.asked import asked_page
        from fast3d_core.report.html import write_html

        page = asked_page(self._asker.rooms, asked)
        size = write_html(path, page)
        for remark in page.notes:
            note(remark)
        note_page(path, size)
        if not self._opened:  # a session's next question is there when the page is loaded again
            open_page(path)
        self._opened = True


class _Session:
    """Questions from stdin, with the scene and the methods that they go to."""

    def __init__(
        self,
        asker: "Asker",
        scene: str,
        pruners: "list[Pruner]",
        build: "Callable[[Sequence[str]], list[Pruner]]",
        answerer: _Answerer,
        json: bool,
    ):
        self._asker, self._scene, self._pruners, self._build = asker, scene, pruners, build
        self._answerer, self._json = answerer, json

    def run(self) -> None:
        """Until /quit, or the end of stdin. What is wrong with a line is reported, and the next one read."""
        self._load(self._pruners)
        if sys.stdin.isatty():
            note("a question a line; /scene NAME, /scene list, /method NAME, /quit")
        for line in _lines():
            try:
                if line in ("/quit", "/exit"):
                    return
                self._take(line)
            except Fast3DError as problem:
                if self._json:
                    print_json_line({"question": line, "error": str(problem)})
                error(str(problem))

    def _load(self, pruners: "list[Pruner]") -> None:
        for pruner in pruners:
            self._asker.load(pruner)

    def _take(self, line: str) -> None:
        command, *names = line.split() if line.startswith("/") else [""]
        if command == "/scene" and len(names) == 1:
            if names == ["list"]:
                list_scenes(self._asker.rooms, self._json, True)
                return
            self._scene = self._asker.rooms.scene(names[0]).scene_id
            note(f"asking about {self._scene}")
        elif command == "/method" and names:
            pruners = self._build(names)
            self._load(pruners)
            self._pruners = pruners
            note(f"asking by {', '.join(names)}")
        elif command:
            raise UsageError("a command is /scene NAME, /scene list, /method NAME, or /quit")
        else:
            self._answerer.answer(line, self._scene, self._pruners, line=True)


def _lines() -> Iterator[str]:
    """Those of stdin, stripped; empty ones only separate. On a terminal each is asked for."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is one question's trouble
    if not sys.stdin.isatty():
        yield from filter(None, (line.strip() for line in iter(partial(_line, sys.stdin), "")))
        return
    with contextlib.suppress(ImportError):  # Windows has its own
        import readline  # noqa: F401 (gives `input` history and editing)
    while True:
        try:
            line = err.input("? ", markup=False).strip()
        except EOFError:
            return
        if line:
            yield line


def _line(stream: TextIO) -> str:
    """The next line, "" at the end; of one that is too long to be a question as much as shows that."""
    from fast3d_core.data.annotations import MOST_CHARACTERS

    line = part = stream.readline(MOST_CHARACTERS + 2)  # with the line break, one more than may be
    while part and not part.endswith("\n"):
        part = stream.readline(1 << 16)
    return line
