"""Prefill: prompts through the layers, keys and values into the caches, logits for the first new token.

Few rows are over before Python has launched the next kernel, so such batches are read by CUDA graphs, one for every so
many rows; what is missing to them is filled with rows that nobody reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fast3d_core.llm.engine.backend import Backend
from fast3d_core.llm.engine.cache import Caches, Layout
from fast3d_core.llm.engine.layers import Head, Layer
from fast3d_core.llm.engine.packing import Packing
from fast3d_core.runtime.graphs import captured

_FEW = 2048  # rows; beyond, launching is hidden behind computing (a 7B model on an H100 takes 40 ms for them)
_STEP = 64  # computed rows by which graphs differ
_GIVEN_STEP = 512  # the same of rows that are only copied
_GRAPHS_KEPT = 32


@dataclass(frozen=True)
class Rows:
    """What a run of layers computes and where that stands in their caches. All of it is on the device before the first
    layer runs: what comes later waits for those before.

    Attributes:
        layout: of their caches; queries: how many rows of each sample they compute, always its last ones.
        places: (rows,) int64, where in the cache the computed rows go.
        stay: of the rows before those that are computed; None for all.
        given: what is not computed but copied: rows of the scene store, and where in the cache they go, (rows,) int64.
    """

    layout: Layout
    queries: Packing
    places: Tensor
    stay: Tensor | None = None
    given: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Reading:
    """A batch to read.

    Attributes:
        x: (rows, hidden) embedded tokens; positions: (rows,) int64.
        runs: by the layer from which on they are meant; what is missing, `choose` gives.
        last: of one row a sample.
        choose: for FastV: given the attention weights of the last rows, (samples, heads, tokens) at layer K - 1, the
            run from layer K on.
    """

    x: Tensor
    positions: Tensor
    runs: dict[int, Rows]
    last: Packing
    drop_at: int
    choose: Callable[[Tensor], Rows] | None = None

    def without_dropped(self) -> "Reading":
        """The same, what is dropped before the first layer left out."""
        first = self.runs[0]
        if first.stay is None:
            return self
        runs = self.runs | {0: replace(first, stay=None)}
        return replace(self, x=self.x[first.stay], positions=self.positions[first.stay], runs=runs)


class Reader:
    """Reads batches; where that pays, by graphs.

    Args:
        caches: to read into; scenes: to copy from.
        tables: cos and sin of all positions, (positions, head_dim).
        graphs: whether small batches may be captured: where attention goes by offsets alone, not by lengths.
    """

    def __init__(
        self,
        backend: Backend,
        layers: Sequence[Layer],
        head: Head,
        caches: Caches,
        scenes: Caches,
        tables: tuple[Tensor, Tensor],
        *,
        graphs: bool,
    ):
        self._backend = backend
        self._layers, self._head, self._caches, self._scenes = layers, head, caches, scenes
        self._tables, self._graphs = tables, graphs
        self._captured: dict[tuple[object, ...], _Captured] = {}  # oldest first
        self.clear()

    def clear(self) -> None:
        """Gives back what was captured."""
        self._captured.clear()
        # Anew, as a pool whose graphs are gone takes no more.
        self._pool = torch.cuda.graph_pool_handle() if self._graphs else None

    def __call__(self, reading: Reading) -> Tensor:
        """(samples, vocab) float32."""
        if not self._graphs or len(reading.x) > _FEW or reading.choose is not None:
            return self.read(reading)
        runs = ((_filled(rows.queries.total), rows.stay is None, _copied(rows)) for rows in reading.runs.values())
        key = (len(reading.last.lengths), reading.drop_at, _filled(len(reading.x)), *runs)
        captured_ = self._captured.pop(key, None) or _Captured(reading)
        if len(self._captured) == _GRAPHS_KEPT:
            del self._captured[next(iter(self._captured))]
        self._captured[key] = captured_
        return captured_(reading, self.read, self._pool)

    def read(self, reading: Reading) -> Tensor:
        """The same, launched from Python."""
        x, runs = reading.x, dict(reading.runs)
        cos, sin = (table.index_select(0, reading.positions) for table in self._tables)
        for i, layer in enumerate(self._layers):
            if i in runs:
                rows = runs[i]
                if rows.stay is not None:
                    x, cos, sin = (part.index_select(0, rows.stay) for part in (x, cos, sin))
            keys, values = self._caches.keys[i], self._caches.values[i]
            if rows.given is not None:
                source, target = rows.given
                keys.index_copy_(0, target, self._scenes.keys[i].index_select(0, source))
                values.index_copy_(0, target, self._scenes.values[i].index_select(0, source))
            q, queries = layer.queries(x, cos, sin, keys, values, rows.places), rows.queries
            if i == reading.drop_at - 1 and reading.choose is not None:
                valid = rows.layout.prompts.valid
                runs[i + 1] = reading.choose(self._backend.row_weights(q[queries.last], rows.layout.view(keys), valid))
            if i == len(self._layers) - 1:  # nobody reads the other rows of the last layer
                x, q, queries = x[queries.last], q[queries.last], reading.last
            x = layer.finish(x, self._backend.prefill_attention(q, keys, values, queries, rows.layout))
        return self._head.logits(x)


class _Captured:
    """Reads batches of about as many rows: the first one from Python, which compiles what has to be, then captured."""

    def __init__(self, like: Reading):
        rows = _filled(len(like.x))
        self._inputs = Reading(
            like.x.new_zeros(rows, like.x.shape[1]),
            like.positions.new_zeros(rows),
            {first: _room_for(run) for first, run in like.runs.items()},
            like.last,
            like.drop_at,
        )
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def __call__(self, reading: Reading, read: Callable[[Reading], Tensor], pool: Any) -> Tensor:
        inputs = self._inputs
        inputs.x[: len(reading.x)].copy_(reading.x)
        inputs.positions[: len(reading.x)].copy_(reading.positions)
        for mine, rows in zip(inputs.runs.values(), reading.runs.values(), strict=True):
            mine.queries.offsets.copy_(rows.queries.offsets)
            mine.layout.prompts.offsets.copy_(rows.layout.prompts.offsets)
            mine.places.fill_(rows.layout.rows)  # rows that nobody reads go to the row behind the last
            mine.places[: len(rows.places)].copy_(rows.places)
            if mine.stay is not None and rows.stay is not None:
                mine.stay[: len(rows.stay)].copy_(rows.stay)
            if mine.given is not None and rows.given is not None:
                (source, target), (from_, to) = mine.given, rows.given
                source[: len(from_)].copy_(from_)
                target.fill_(rows.layout.rows)
                target[: len(to)].copy_(to)
        if not self._warm:
            logits = read(inputs)
            self._warm = True
            return logits
        if self._graph is None:
            self._graph, self._logits = captured(lambda: read(inputs), pool)
        self._graph.replay()
        assert self._logits is not None
        return self._logits


def _filled(rows: int, step: int = _STEP) -> int:
    return -(-rows // step) * step


def _copied(rows: Rows) -> int:
    """How many rows a graph copies that serves these."""
    return 0 if rows.given is None else _filled(len(rows.given[0]), _GIVEN_STEP)


def _room_for(rows: Rows) -> Rows:
    """Tensors that hold any rows of about this number. Their offsets say whose they are; their lengths do not."""
    count, copied = _filled(rows.queries.total), _copied(rows)
    queries, prompts = (_packing_for(total, rows.queries) for total in (count, count + copied))
    stay = None if rows.stay is None else rows.stay.new_zeros(count)
    places = rows.places.new_zeros(count)
    given = None if rows.given is None else (places.new_zeros(copied), places.new_zeros(copied))
    return Rows(Layout(prompts, 0, padded=False), queries, places, stay, given)


def _packing_for(total: int, like: Packing) -> Packing:
    packing = Packing([total], like.device)
    packing.offsets = torch.zeros_like(like.offsets)
    return packing
