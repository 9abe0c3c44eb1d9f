"""What `fast3d ask` prints. Nothing that comes from a file or a model is read as markup."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from fast3d_cli.console import note, out, print_json, print_json_line
from fast3d_core.text import printable

if TYPE_CHECKING:
    from fast3d_core.asking.reply import Reply
    from fast3d_core.asking.rooms import Rooms, SceneObject

_SHOWN, _SHOWN_IN_CELL = 12, 3  # kept objects that are named


def show(replies: "Sequence[Reply]", json: bool, line: bool = False) -> None:
    """The answers to one question, side by side where there are several; `line`: JSON on one line."""
    if json:
        plain = [reply.to_dict() for reply in replies]
        (print_json_line if line else print_json)(plain[0] if len(plain) == 1 else plain)
        return
    note(f"{replies[0].scene}: {replies[0].prompt}")
    if len(replies) == 1:
        _show_one(replies[0])
    else:
        out.print(_table(replies), soft_wrap=False)
        for one in {one.slot: one for reply in replies for one in reply.named}.values():
            out.print(Text(_where(one)))
    out.file.flush()


def list_scenes(rooms: "Rooms", json: bool, line: bool = False) -> None:
    """All scenes, and what is in them; `line` as above."""
    listed = {name: rooms.objects(name) for name in rooms}
    if json:
        plain = {name: [asdict(one) for one in objects] for name, objects in listed.items()}
        (print_json_line if line else print_json)(plain)
        return
    for name, objects in listed.items():
        names = printable(", ".join(f"{one.slot} {one.label or 'object'}" for one in objects))
        out.print(Text.assemble((printable(name), "bold"), f" ({len(objects)} objects): {names}"))


def _show_one(reply: "Reply") -> None:
    out.print(Text(printable(reply.text), "bold"))
    for one in reply.named:
        out.print(Text(f"  {_where(one)}"))
    stages = ", ".join(f"{name} {took:.3f}" for name, took in reply.seconds.items() if name != "end_to_end")
    for title, line in (
        (printable(reply.method), f"kept {_names(reply.kept, _SHOWN)}"),
        ("saved", _saved(reply)),
        ("took", f"{reply.seconds['end_to_end']:.3f} s: {stages}"),
    ):
        out.print(Text.assemble("  ", (title, "dim"), f"  {line}"))


def _saved(reply: "Reply") -> str:
    """Tokens and FLOPs."""
    (layer, kept), *later = reply.stages or ((0, reply.visual),)
    dropped = f"{reply.visual - kept} of {reply.visual} visual tokens from layer {layer} of {reply.layers} on"
    dropped += "".join(f", {reply.visual - kept} from layer {layer} on" for layer, kept in later)
    flops = f"{reply.flops / 1e9:.3g} GFLOPs, unpruned {reply.flops_unpruned / 1e9:.3g}"
    return f"{dropped}, {reply.pruned:.1f}% over all layers; {flops}"


def _table(replies: "Sequence[Reply]") -> Table:
    answer, kept = Column("answer", overflow="fold"), Column("kept objects", overflow="fold")
    numbers = (Column(title, justify="right", no_wrap=True) for title in ("pruned", "GFLOPs", "seconds"))
    table = Table(Column("method", overflow="fold"), answer, kept, *numbers, box=SIMPLE, padding=(0, 1, 0, 0))
    for reply in replies:
        table.add_row(
            Text(printable(reply.method)),
            Text(printable(reply.text), "bold"),
            Text(_names(reply.kept, _SHOWN_IN_CELL)),
            f"{reply.pruned:.1f}%",
            f"{reply.flops / 1e9:.3g}",
            f"{reply.seconds['end_to_end']:.3f}",
        )
    return table


def _names(objects: "Sequence[SceneObject]", most: int) -> str:
    named = ", ".join(str(one) for one in objects[:most])
    more = f" and {len(objects) - most} more" if len(objects) > most else ""
    return printable(f"{len(objects)}: {named}{more}" if objects else "no object")


def _where(one: "SceneObject") -> str:
    """An object that an answer names: what it is, and where."""
    place = "" if one.centre is None else " at ({:.2f}, {:.2f}, {:.2f}) m".format(*one.centre)
    return printable(f"{one}{place}")
