"""The prefix cache: keys and values of what stands before the questions about a scene, kept from batch to batch.

Every prefix has a slot of as many rows; the buffers stay where they are, so that captured passes find them.
"""

from collections.abc import Sequence

from torch import Tensor

from fast3d_core.llm.engine.cache import Caches

PREFIXES_KEPT = 8
"""Prefixes that are kept at least, or as many as a batch asked about at once; 180 MB each for Vicuna-7B in bf16."""


class PrefixCache:
    """Prefixes by the very tensor of their embedded tokens.

    Attributes:
        caches: the slots' rows, of every layer.
    """

    def __init__(self, caches: Caches):
        self.caches = caches
        # By id of the prefix, which is kept, too: no other tensor can have its id then. Oldest use first.
        self._slots: dict[int, tuple[Tensor, int]] = {}
        self._slot_rows = self._count = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, prefix: Tensor) -> bool:
        return id(prefix) in self._slots

    def first_row(self, prefix: Tensor) -> int:
        """Where a prefix's rows begin."""
        return self._slots[id(prefix)][1] * self._slot_rows

    def fit(self, prefixes: Sequence[Tensor]) -> bool:
        """Grows to hold these prefixes at once. Whether buffers were replaced for it; all prefixes are lost then.

        Those that are cached become the ones used last: no new one takes their slot.

        Args:
            prefixes: (tokens, hidden) each, all different.
        """
        rows, count = max(map(len, prefixes)), max(PREFIXES_KEPT, len(prefixes))
        if rows <= self._slot_rows and count <= self._count:
            self._slots |= {id(prefix): self._slots.pop(id(prefix)) for prefix in prefixes if prefix in self}
            return False
        rows, count = max(rows, self._slot_rows), max(count, self._count)
        self._slots.clear()
        self._slot_rows = self._count = 0  # should memory not suffice
        self.caches.fit([rows * count] * len(self.caches.keys))
        self._slot_rows, self._count = rows, len(self.caches.keys[0]) // rows  # buffers grow beyond what is asked for
        return True

    def keep(self, prefix: Tensor, caches: Caches) -> None:
        """Copies a prefix whose rows are the first of `caches`. Where all slots are taken, the prefix that was used
        longest ago is evicted."""
        slot = len(self._slots)
        if slot == self._count:
            _, slot = self._slots.pop(next(iter(self._slots)))
        first = slot * self._slot_rows
        for kept, read in zip(self.caches.both, caches.both, strict=True):
            for mine, theirs in zip(kept, read, strict=True):
                mine[first : first + len(prefix)].copy_(theirs[: len(prefix)])
        self._slots[id(prefix)] = (prefix, slot)
