"""Prefill: prompts through the layers, keys and values into the caches, logits for the first new token.

A GPU is done with few rows before Python has launched the next kernel, so such batches run as CUDA graphs, one for
every so many rows; where a batch has fewer, padding fills them up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fast3d_core.llm.engine.backend import Backend
from fast3d_core.llm.engine.cache import Caches, PromptRows
from fast3d_core.llm.engine.layers import Head, Layer
from fast3d_core.llm.engine.packing import Packing, Seqlens
from fast3d_core.llm.engine.runs import Kept, Run, RunTensors
from fast3d_core.llm.engine.selection import Looked, Selection
from fast3d_core.runtime.graphs import captured

_FEW = 2048  # rows; beyond, launching is hidden behind computing (a 7B model on an H100 takes 40 ms for them)
# Rows are padded to a multiple of these, so that few graphs serve all batches. A GPU's matrix products compute tiles of
# 64 rows anyway, so padding costs little; cached rows are only copied, so theirs costs less. Both are chosen, not
# measured.
_STEP, _CACHED_STEP = 64, 512
# Enough for every size of batch, where all have the same number of samples and cached rows; those with more evict each
# other. Chosen, not measured: the graphs share one memory pool.
_GRAPHS_KEPT = _FEW // _STEP


@dataclass(frozen=True)
class PrefillTensors:
    """What prefill computes with, all of it tensors on the device.

    Attributes:
        x: (rows, hidden) embedded tokens; positions: (rows,) int64.
        runs: by their first layer; those that are known before the first layer runs.
        last: of one row a sample.
    """

    x: Tensor
    positions: Tensor
    runs: Mapping[int, RunTensors]
    last: Packing


@dataclass(frozen=True)
class PrefillBatch(PrefillTensors):
    """Prompts to compute.

    Attributes:
        kept: of each sample, by the stages whose runs are known.
        selection: the stages that have to look first; None where all runs are known.
    """

    runs: Mapping[int, Run]
    kept: list[Kept]
    selection: Selection | None = None

    def without_dropped(self) -> "PrefillBatch":
        """The same, what is dropped before the first layer left out."""
        first = self.runs.get(0)
        if first is None or first.keep_index is None:
            return self
        runs = {**self.runs, 0: replace(first, keep_index=None)}
        x, positions = self.x[first.keep_index], self.positions[first.keep_index]
        return replace(self, x=x, positions=positions, runs=runs)


@dataclass(frozen=True)
class PrefillResult:
    """What comes of a batch.

    Attributes:
        logits: (samples, vocab) float32.
        runs: all of them, by their first layer.
        kept: of each sample, by all stages of its plan.
    """

    logits: Tensor
    runs: Mapping[int, Run]
    kept: list[Kept]


class Prefill:
    """Computes batches of prompts; where that pays, by graphs.

    Args:
        caches: to write; prefixes: to copy from.
        rope: cos and sin of all positions, (positions, head_dim).
        graphs: whether small batches may be captured: where attention asks for no lengths on the host.
    """

    def __init__(
        self,
        backend: Backend,
        layers: Sequence[Layer],
        head: Head,
        caches: Caches,
        prefixes: Caches,
        rope: tuple[Tensor, Tensor],
        *,
        graphs: bool,
    ):
        self._backend = backend
        self._layers, self._head, self._caches, self._prefixes = layers, head, caches, prefixes
        self._rope, self._graphs = rope, graphs
        self._captured: dict[tuple[object, ...], _Captured] = {}  # the one used longest ago is first
        self.clear()

    def clear(self) -> None:
        """Frees what was captured."""
        self._captured.clear()
        # A new one, as a pool whose graphs are gone takes no more.
        self._pool = torch.cuda.graph_pool_handle() if self._graphs else None

    def __call__(self, batch: PrefillBatch) -> PrefillResult:
        """Prompts into the caches."""
        batch = batch.without_dropped()
        if batch.selection is not None:
            return self._select(batch, batch.selection)
        if not self._graphs or len(batch.x) > _FEW:
            return PrefillResult(self.run(batch), batch.runs, batch.kept)
        runs = (
            (layer, _filled(run.queries.num_tokens), run.keep_index is None, _copied(run))
            for layer, run in batch.runs.items()
        )
        key = (len(batch.last.lengths), _filled(len(batch.x)), *runs)
        captured_ = self._captured.pop(key, None) or _Captured(batch)
        if len(self._captured) == _GRAPHS_KEPT:
            del self._captured[next(iter(self._captured))]
        self._captured[key] = captured_
        return PrefillResult(captured_(batch, self.run, self._pool), batch.runs, batch.kept)

    def run(self, batch: PrefillTensors) -> Tensor:
        """Logits (samples, vocab) float32 of a batch whose runs are all known; does not wait for the device."""
        x, rope = batch.x, self._rope_of(batch.positions)
        for i in range(len(self._layers)):
            if i in batch.runs:
                run = batch.runs[i]
                x, rope = _kept_rows(run, x, rope)
            q = self._queries(i, x, rope, run)
            x = self._finish(i, x, q, run, batch.last)
        return self._head.logits(x)

    def _select(self, batch: PrefillBatch, selection: Selection) -> PrefillResult:
        """The same where stages look at what the layers before them compute; each boundary waits for the device."""
        x, rope = batch.x, self._rope_of(batch.positions)
        runs, kept, looked = dict(batch.runs), batch.kept, Looked()
        for i in range(len(self._layers)):
            entered = selection.enter(i, kept, x, looked) if i in selection.layers else None
            if entered is not None:
                kept, runs[i] = entered.kept, entered.run
            if i in runs:
                run = runs[i]
                x, rope = _kept_rows(run, x, rope)
            for rows, states in entered.merged if entered is not None else ():
                x[rows] = states
            q = self._queries(i, x, rope, run)
            if i + 1 in selection.layers:
                looked = selection.attention(self._backend, i + 1, kept, q, self._caches.keys[i], run)
            x = self._finish(i, x, q, run, batch.last)
        return PrefillResult(self._head.logits(x), runs, kept)

    def _rope_of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._rope
        return cos.index_select(0, positions), sin.index_select(0, positions)

    def _queries(self, i: int, x: Tensor, rope: tuple[Tensor, Tensor], run: RunTensors) -> Tensor:
        """A layer's queries (rows, heads, head_dim); its keys and values are in the cache then, cached ones too."""
        keys, values = self._caches.keys[i], self._caches.values[i]
        if run.cached is not None:
            source, target = run.cached
            keys.index_copy_(0, target, self._prefixes.keys[i].index_select(0, source))
            values.index_copy_(0, target, self._prefixes.values[i].index_select(0, source))
        return self._layers[i].queries(x, *rope, keys, values, run.slot_mapping)

    def _finish(self, i: int, x: Tensor, q: Tensor, run: RunTensors, last: Packing) -> Tensor:
        """A layer's output (rows, hidden), which takes the place of x."""
        queries: Seqlens = run.queries
        if i == len(self._layers) - 1:  # of the last layer's rows only each sample's last one is needed
            x, q, queries = x[queries.last], q[queries.last], last
        keys, values = self._caches.keys[i], self._caches.values[i]
        return self._layers[i].finish(x, self._backend.prefill_attention(q, keys, values, queries, run.layout))


def _kept_rows(run: RunTensors, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The rows that go on to be computed in a run."""
    if run.keep_index is None:
        return x, rope
    cos, sin = (part.index_select(0, run.keep_index) for part in rope)
    return x.index_select(0, run.keep_index), (cos, sin)


class _Captured:
    """Computes batches of about as many rows: the first one from Python, which compiles what has to be, then captured.

    Its tensors are as long as those of any batch of its kind; what a batch lacks is padding.
    """

    def __init__(self, like: PrefillBatch):
        rows = _filled(len(like.x))
        self._inputs = PrefillTensors(
            like.x.new_zeros(rows, like.x.shape[1]),
            like.positions.new_zeros(rows),
            {layer: _tensors_for(run) for layer, run in like.runs.items()},
            like.last,
        )
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def __call__(self, batch: PrefillBatch, run: Callable[[PrefillTensors], Tensor], pool: Any) -> Tensor:
        self._fill(batch)
        if not self._warm:
            logits = run(self._inputs)
            self._warm = True
            return logits
        if self._graph is None:
            self._graph, self._logits = captured(lambda: run(self._inputs), pool)
        self._graph.replay()
        assert self._logits is not None
        return self._logits

    def _fill(self, batch: PrefillBatch) -> None:
        inputs = self._inputs
        inputs.x[: len(batch.x)].copy_(batch.x)
        inputs.positions[: len(batch.x)].copy_(batch.positions)
        for mine, run in zip(inputs.runs.values(), batch.runs.values(), strict=True):
            mine.queries.cu_seqlens.copy_(run.queries.cu_seqlens)
            mine.layout.prompts.cu_seqlens.copy_(run.layout.prompts.cu_seqlens)
            mine.slot_mapping.fill_(run.layout.rows)  # padding goes to the row behind the last
            mine.slot_mapping[: len(run.slot_mapping)].copy_(run.slot_mapping)
            if mine.keep_index is not None and run.keep_index is not None:
                mine.keep_index[: len(run.keep_index)].copy_(run.keep_index)
            if mine.cached is not None and run.cached is not None:
                (source, target), (from_, to) = mine.cached, run.cached
                source[: len(from_)].copy_(from_)
                target.fill_(run.layout.rows)
                target[: len(to)].copy_(to)


def _filled(rows: int, step: int = _STEP) -> int:
    return -(-rows // step) * step


def _copied(run: RunTensors) -> int:
    """How many rows a graph copies that serves this run."""
    return 0 if run.cached is None else _filled(len(run.cached[0]), _CACHED_STEP)


def _tensors_for(run: Run) -> RunTensors:
    """Tensors that hold any run of about as many rows; whose rows these are, their cu_seqlens say when they are filled.

    No prompt is longer than all of them together.
    """
    count, copied = _filled(run.queries.num_tokens), _copied(run)
    queries, prompts = (
        Seqlens(torch.zeros_like(run.queries.cu_seqlens), total, total) for total in (count, count + copied)
    )
    keep_index = None if run.keep_index is None else run.keep_index.new_zeros(count)
    slots = run.slot_mapping.new_zeros(count)
    cached = None if run.cached is None else (slots.new_zeros(copied), slots.new_zeros(copied))
    return RunTensors(PromptRows(prompts), queries, slots, keep_index, cached)
