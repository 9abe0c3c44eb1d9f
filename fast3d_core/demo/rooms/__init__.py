"""Procedural rooms: furniture with colour, material, size and place, laid out without interpenetration."""

from fast3d_core.demo.rooms.catalogue import COLOURS, KINDS, MATERIALS, SIZES, Kind
from fast3d_core.demo.rooms.layout import draw_size, make_room
from fast3d_core.demo.rooms.relations import Room

__all__ = ["COLOURS", "KINDS", "MATERIALS", "SIZES", "Kind", "Room", "draw_size", "make_room"]
