"""Answers questions by reading their words, slowly and obviously, from nothing but boxes and attributes."""

import math
import re

from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES

_KIND = {word: kind.name for kind in KINDS for word in (kind.name, kind.plural)}
_HOW = "closest to|farthest from|on|under|near"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class UnclearError(AssertionError):
    """Two readings of a question have different answers."""


def things_of(room):
    return [
        {
            "id": i,
            "kind": KINDS[room.kinds[i]].name,
            "size": SIZES[room.sizes[i]],
            "colour": COLOURS[room.colours[i]],
            "material": MATERIALS[room.materials[i]],
            "box": tuple(map(float, room.boxes[i])),
        }
        for i in range(len(room))
    ]


def named(things, words):
    """All things that a name such as "small red chairs" fits."""
    rest = words
    wanted = {}
    for key, known in (("size", SIZES), ("colour", COLOURS), ("material", MATERIALS)):
        first, _, after = rest.partition(" ")
        if first in known:
            wanted[key], rest = first, after
    wanted["kind"] = _KIND[rest]
    return [thing for thing in things if all(thing[key] == value for key, value in wanted.items())]


def one(found):
    if len(found) != 1:
        raise UnclearError(f"{len(found)} things instead of one")
    return found[0]


def full_name(thing):
    return " ".join(thing[key] for key in ("size", "colour", "material", "kind"))


def distance(a, b):
    return math.dist(a["box"][:3], b["box"][:3])


def bottom(thing):
    return thing["box"][2] - thing["box"][5] / 2


def top(thing):
    return thing["box"][2] + thing["box"][5] / 2


def is_on(a, b):
    inside = all(abs(a["box"][axis] - b["box"][axis]) < b["box"][3 + axis] / 2 for axis in (0, 1))
    return a is not b and inside and abs(bottom(a) - top(b)) < 0.02


def is_under(a, b, share):
    """Whether `a` is below more than `share` of the footprint of `b`, without touching it."""
    covered = 1.0
    for axis in (0, 1):
        low = max(t["box"][axis] - t["box"][3 + axis] / 2 for t in (a, b))
        high = min(t["box"][axis] + t["box"][3 + axis] / 2 for t in (a, b))
        covered *= max(0.0, high - low) / b["box"][3 + axis]
    return covered > share and bottom(b) - top(a) > 0.05


def related(things, how, anchor, strict):
    """All that stand in a relation to the anchor, by a strict or a loose reading."""
    others = [thing for thing in things if thing is not anchor]
    if how == "on":
        return [thing for thing in others if is_on(thing, anchor)]
    if how == "under":
        return [thing for thing in others if is_under(thing, anchor, 0.65 if strict else 0.25)]
    if how == "near":
        return [thing for thing in others if distance(thing, anchor) < (1.27 if strict else 1.73)]
    key = (lambda thing: distance(thing, anchor)) if how == "closest to" else (lambda t: -distance(t, anchor))
    first, *rest = sorted(others, key=key)
    if rest and abs(key(rest[0]) - key(first)) < 0.19:
        raise UnclearError("two are about as far")
    return [first]


def described(things, words, strict=True):
    """All things that a description fits."""
    words = re.sub("^(the|an|a) ", "", words)
    if match := re.fullmatch("(tallest|largest|smallest) (.*)", words):
        return [superlative(named(things, match[2]), match[1])]
    if match := re.fullmatch(f"(.*?) ({_HOW}) the (.*)", words):
        return related_named(things, *match.groups(), strict)
    return named(things, words)


def related_named(things, words, how, place, strict):
    anchor = one(named(things, place))
    found = named(things, words)
    if how in ("closest to", "farthest from"):
        return related(found, how, anchor, strict)
    return [thing for thing in related(things, how, anchor, strict) if thing in found]


def superlative(found, how):
    def size(thing):
        return thing["box"][5] if how == "tallest" else math.prod(thing["box"][3:])

    ordered = sorted(found, key=size, reverse=how != "smallest")
    ratio = size(ordered[0]) / size(ordered[1])
    if max(ratio, 1 / ratio) < 1.14:
        raise UnclearError("two are about as large")
    return ordered[0]


def agreed(things, words):
    """The ids of all things described, if the strict and the loose reading agree."""
    strict, loose = ([thing["id"] for thing in described(things, words, how)] for how in (True, False))
    if strict != loose:
        raise UnclearError(words)
    return strict


def scanqa(things, prompt):
    question = re.sub(r"\? Answer the question.*", "", prompt)
    if match := re.fullmatch("What (color|material) is (.*)", question):
        return one([things[i] for i in agreed(things, match[2])])[match[1].replace("color", "colour")]
    if match := re.fullmatch("How many (.*) are in the room", question):
        return NUMBERS[len(named(things, match[1]))]
    if match := re.fullmatch("Is there (?:a|an) (.*) in the room", question):
        return "yes" if named(things, match[1]) else "no"
    if match := re.fullmatch("What is on the (.*)", question):
        return full_name(one(related(things, "on", one(named(things, match[1])), True)))
    match = re.fullmatch("What is closest to the (.*)", question)
    anchor = one(named(things, match[1]))
    return nearest(things, anchor, full_name)


def nearest(things, anchor, name):
    """The name of the nearest other thing, if nothing of another name is about as near."""
    others = sorted((distance(thing, anchor), name(thing)) for thing in things if thing is not anchor)
    if any(other != others[0][1] and away - others[0][0] < 0.19 for away, other in others):
        raise UnclearError("two are about as near")
    return others[0][1]


def caption(things, thing):
    """The first caption of a thing."""

    def short(t):
        return f"{t['colour']} {t['kind']}"

    def a(words):
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

    below = [other for other in things if is_on(thing, other)]
    place = f"on {a(short(one(below)))}" if below else f"next to {a(nearest(things, thing, short))}"
    return f"This is {a(full_name(thing))}. It is {place}."


def sides(things, at, facing):
    """{side: [(distance on the floor, thing)]}, without what stands where one does."""
    ahead = [facing["box"][axis] - at["box"][axis] for axis in (0, 1)]
    found = {"front": [], "left": [], "behind": [], "right": []}
    for thing in things:
        if thing is at or is_on(thing, at):
            continue
        x, y = (thing["box"][axis] - at["box"][axis] for axis in (0, 1))
        forward, left = x * ahead[0] + y * ahead[1], y * ahead[0] - x * ahead[1]
        ahead_or_behind = "front" if forward > 0 else "behind"
        beside = "left" if left > 0 else "right"
        found[ahead_or_behind if abs(forward) > abs(left) else beside].append((math.hypot(x, y), thing))
    return found


def check_side(at, facing, thing):
    """Raises `UnclearError` for a thing at hand, or within 9 degrees of two sides' border."""
    bearings = [math.atan2(*(t["box"][axis] - at["box"][axis] for axis in (1, 0))) for t in (thing, facing)]
    past = math.degrees(bearings[0] - bearings[1]) % 90  # 45 is a border
    if thing is not at and (abs(past - 45) < 9 or math.dist(at["box"][:2], thing["box"][:2]) < 0.49):
        raise UnclearError("on no side")


_SIDES = {"in front of me": "front", "on my left": "left", "behind me": "behind", "on my right": "right"}
_GO = {"front": "forward", "left": "left", "behind": "backward", "right": "right"}


def sqa3d(things, prompt):
    pattern = r"I am standing next to the (.*) and facing the (.*)\. (.*)\? Answer the question.*"
    at, facing, question = re.fullmatch(pattern, prompt).groups()
    at, facing = one(named(things, at)), one(named(things, facing))
    around = sides(things, at, facing)
    side_of = {thing["id"]: side for side, found in around.items() for _, thing in found}
    if match := re.fullmatch("What is (.*)", question):
        (first, thing), *rest = sorted(around[_SIDES[match[1]]], key=lambda pair: pair[0])
        for away, other in (pair for found in around.values() for pair in found):
            if away < first + 0.19 and other["kind"] != thing["kind"]:
                check_side(at, facing, other)
        if any(other["kind"] != thing["kind"] and away - first < 0.19 for away, other in rest):
            raise UnclearError("two are about as near")
        return thing["kind"]
    if match := re.fullmatch("(?:Is|Which direction should I go to reach) the (.*?)( (?:on|in|behind) .*)?", question):
        check_side(at, facing, one(named(things, match[1])))
    if match := re.fullmatch("Is the (.*) on my left or right", question):
        return side_of[one(named(things, match[1]))["id"]]
    if match := re.fullmatch("Is the (.*) (in front of me|on my left|behind me|on my right)", question):
        return "yes" if side_of[one(named(things, match[1]))["id"]] == _SIDES[match[2]] else "no"
    if match := re.fullmatch("How many (.*) are (in front of me|on my left|behind me|on my right)", question):
        for thing in named(things, match[1]):
            check_side(at, facing, thing)
        return NUMBERS[sum(thing in named(things, match[1]) for _, thing in around[_SIDES[match[2]]])]
    if match := re.fullmatch("Can I reach the (.*) from here", question):
        away = distance(at, one(named(things, match[1])))
        if 1.27 < away < 1.73:
            raise UnclearError("neither near nor far")
        return "yes" if away < 1.5 else "no"
    if match := re.fullmatch("Which direction should I go to reach the (.*)", question):
        return _GO[side_of[one(named(things, match[1]))["id"]]]
    first, second = re.fullmatch("Am I closer to the (.*) or the (.*)", question).groups()
    near, far = sorted((one(named(things, words)) for words in (first, second)), key=lambda t: distance(at, t))
    if distance(at, far) - distance(at, near) < 0.19:
        raise UnclearError("two are about as near")
    return near["kind"]
