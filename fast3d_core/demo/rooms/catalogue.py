"""The classes of things in the demo's rooms: sizes, colours, materials, and what stands beside and on what."""

from dataclasses import dataclass

SIZES = ("small", "medium", "large")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray", "beige")
MATERIALS = ("wooden", "metal", "plastic", "leather", "fabric", "glass")

_PALETTES = {
    "any": " ".join(COLOURS),
    "wood": "brown black white gray beige yellow orange",
    "cloth": "red yellow green blue purple pink brown black white gray beige",
    "machine": "black white gray red blue",
    "bright": "red orange yellow green blue purple pink white black",
}

# Similar shapes are neighbours: fours of them are hard to distinguish in the 3D features. No name is part of another,
# because refined exact match would take "table" for "coffee table".
# name, plural, where it stands, width x depth x height in metres, colours, materials
_FURNITURE = """
sofa        sofas         wall   1.90 0.85 0.70  cloth    leather,fabric
bed         beds          wall   1.50 2.00 0.55  wood     wooden,metal,fabric
bench       benches       floor  1.20 0.45 0.45  wood     wooden,metal,plastic,leather
recliner    recliners     floor  0.85 0.85 0.90  cloth    leather,fabric
desk        desks         wall   1.40 0.70 0.75  wood     wooden,metal,glass
table       tables        floor  1.50 0.90 0.75  wood     wooden,metal,glass,plastic
counter     counters      wall   1.80 0.60 0.95  wood     wooden,metal,plastic
piano       pianos        wall   1.45 0.65 1.15  wood     wooden,plastic
cabinet     cabinets      wall   0.90 0.50 1.00  any      wooden,metal,plastic
dresser     dressers      wall   1.10 0.50 0.85  wood     wooden,plastic
wardrobe    wardrobes     wall   1.20 0.60 1.80  wood     wooden,metal,plastic
shelf       shelves       wall   0.90 0.35 1.60  any      wooden,metal,plastic
nightstand  nightstands   side   0.45 0.40 0.55  wood     wooden,metal,plastic
stool       stools        side   0.38 0.38 0.60  any      wooden,metal,plastic,leather
ottoman     ottomans      floor  0.60 0.50 0.42  cloth    leather,fabric
chair       chairs        side   0.48 0.50 0.88  any      wooden,metal,plastic,leather,fabric
box         boxes         floor  0.40 0.35 0.32  any      wooden,plastic,metal
basket      baskets       floor  0.38 0.38 0.35  any      wooden,plastic,metal,fabric
trash can   trash cans    floor  0.30 0.30 0.45  any      metal,plastic
suitcase    suitcases     floor  0.50 0.30 0.65  any      plastic,leather,fabric
backpack    backpacks     floor  0.35 0.25 0.45  bright   leather,fabric
plant       plants        floor  0.45 0.45 0.85  any      wooden,plastic,glass
radiator    radiators     wall   0.90 0.15 0.60  machine  metal
refrigerator refrigerators wall  0.70 0.70 1.65  machine  metal,plastic
television  televisions   top    0.85 0.12 0.50  machine  plastic,glass,metal
monitor     monitors      top    0.50 0.15 0.40  machine  plastic,glass,metal
printer     printers      top    0.42 0.38 0.25  machine  plastic,metal
microwave   microwaves    top    0.48 0.36 0.28  machine  plastic,metal
lamp        lamps         top    0.25 0.25 0.48  any      metal,glass,fabric,plastic
vase        vases         top    0.16 0.16 0.28  any      glass,metal,plastic
bottle      bottles       top    0.09 0.09 0.27  bright   glass,plastic,metal
cup         cups          top    0.10 0.10 0.11  any      glass,plastic,metal
book        books         top    0.20 0.26 0.06  any      leather,fabric,plastic
keyboard    keyboards     top    0.42 0.15 0.04  machine  plastic,metal
pillow      pillows       top    0.50 0.35 0.16  cloth    leather,fabric
clock       clocks        hung   0.32 0.05 0.32  any      wooden,metal,plastic,glass
picture     pictures      hung   0.60 0.04 0.50  any      wooden,metal,plastic,glass
window      windows       hung   1.20 0.06 1.10  wood     wooden,metal,plastic
mirror      mirrors       hung   0.55 0.04 0.90  wood     wooden,metal,plastic
door        doors         wall   0.90 0.06 2.00  any      wooden,metal,glass
"""


@dataclass(frozen=True)
class Kind:
    """A class of things: where it stands, its medium size (3,) in metres, the colours and materials it comes in."""

    name: str
    plural: str
    place: str
    extent: tuple[float, float, float]
    colours: tuple[int, ...]
    materials: tuple[int, ...]


def _kind(row: str) -> Kind:
    words = row.split()
    *names, place, width, depth, height, palette, materials = words
    half = len(names) // 2  # "trash can trash cans"
    colours = _PALETTES[palette].split()
    return Kind(
        " ".join(names[:half]),
        " ".join(names[half:]),
        place,
        (float(width), float(depth), float(height)),
        tuple(map(COLOURS.index, colours)),
        tuple(map(MATERIALS.index, materials.split(","))),
    )


KINDS = tuple(_kind(row) for row in _FURNITURE.strip().splitlines())
_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}
AT = {place: [i for i, kind in enumerate(KINDS) if kind.place == place] for place in ("wall", "floor", "top", "hung")}


def _indices(table: dict[str, str]) -> dict[int, tuple[int, ...]]:
    return {_INDEX[base]: tuple(_INDEX[name] for name in names.split(",")) for base, names in table.items()}


BESIDE = _indices(
    {"table": "chair", "desk": "chair", "counter": "stool", "piano": "stool", "bed": "nightstand", "shelf": "chair"}
)
ON = _indices(
    {
        "table": "lamp,vase,bottle,cup,book,cup,printer,keyboard",
        "desk": "monitor,keyboard,lamp,book,cup,bottle,printer,monitor",
        "counter": "microwave,cup,bottle,vase,book,cup,lamp",
        "cabinet": "television,lamp,vase,printer,book,clock,microwave,box",
        "dresser": "television,lamp,vase,book,clock,bottle,monitor",
        "nightstand": "lamp,book,cup,clock,bottle",
        "wardrobe": "box,suitcase,basket,backpack",
        "shelf": "box,plant,vase,book,basket",
        "refrigerator": "box,microwave,basket",
        "piano": "lamp,vase,book,plant",
        "bed": "pillow,pillow,book,backpack",
        "sofa": "pillow,pillow,book",
        "bench": "pillow,backpack,box,book",
        "ottoman": "book,pillow,cup",
        "box": "book,box,cup",
    }
)
TWO_SIDED = _INDEX["table"]  # chairs stand on both sides of a table, of all else in front
NEXT_TO = _INDEX["bed"]  # nightstands stand next to a bed, not in front of it
