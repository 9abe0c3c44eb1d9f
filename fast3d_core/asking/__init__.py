"""Putting a question of one's own to a scene: `fast3d ask`, and `Asker` in Python.

`rooms.py` has the scenes, `wording.py` makes a prompt of what somebody typed, `asker.py` answers it, `reply.py` is what
comes of it.
"""
