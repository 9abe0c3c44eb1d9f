"""Stages of plans that have to look first: their functions are called between two layers of prefill.

`Selection` holds what a batch is asked for and changes nothing: what is selected at a boundary is returned, and handed
in again at the next one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast3d_core.errors import PlanError
from fast3d_core.llm.engine.backend import Backend
from fast3d_core.llm.engine.look import Rows, last_attention, text_attention
from fast3d_core.llm.engine.runs import Kept, Run
from fast3d_core.llm.generation import Prompt
from fast3d_core.plan import Plan, Stage, View

Looked = dict[int, dict[str, Tensor]]
"""By sample what its next stage looks at: "last", "text" and "keys", on the device."""

_ON_CPU = {"last", "text"}  # stages that look at nothing else get it on the CPU, see `View`


def boundaries(plans: Sequence[Plan]) -> list[int]:
    """The layers before which the batch is cut into runs, ascending; 0 is one of them."""
    return sorted({0, *(stage.layer for plan in plans for stage in plan.stages)})


def known(plans: Sequence[Plan], layer: int, kept: Sequence[Kept]) -> list[Kept] | None:
    """What is kept from `layer` on; None where a stage at this layer has to look first.

    Args:
        kept: what is kept before it.
    """
    stages = [_next_stage(plan, layer, own) for plan, own in zip(plans, kept, strict=True)]
    if any(stage is not None and stage.waits for stage in stages):
        return None
    return [
        own if stage is None else (*own, plan.resolve(len(own), View(_there(plan, own))))
        for plan, own, stage in zip(plans, kept, stages, strict=True)
    ]


def check_cached(prompt: Prompt, plan: Plan) -> None:
    """Raises `PlanError` where a question whose prefix is cached cannot be answered under a plan."""
    if prompt.shared < prompt.visual_start + prompt.visual:
        raise PlanError("the prefix that prompts share does not reach to the end of the visual tokens; turn reuse off")
    if any("hidden" in stage.look for stage in plan.stages):
        raise PlanError("the prefix cache holds no hidden states, which a stage of the plan looks at; turn reuse off")


@dataclass(frozen=True)
class Entered:
    """What a boundary changes.

    Attributes:
        kept: of each sample; run: of the layers behind the boundary.
        merged: rows that enter it with other hidden states, and these, (rows, hidden).
    """

    kept: list[Kept]
    run: Run
    merged: list[tuple[slice, Tensor]]


@dataclass(frozen=True)
class Selection:
    """The stages of a batch from the first one on that has to look.

    Attributes:
        layers: the boundaries that are left.
        runs: makes the run behind a boundary from what is kept before and behind it.
    """

    prompts: Sequence[Prompt]
    plans: Sequence[Plan]
    layers: Sequence[int]
    runs: Callable[[Sequence[Kept], Sequence[Kept]], Run]

    def attention(
        self, backend: Backend, layer: int, kept: Sequence[Kept], q: Tensor, keys: Tensor, run: Run
    ) -> Looked:
        """What the stages at `layer` look at in the layer before it, on the device. Called before that layer ends.

        Args:
            kept: of each sample, before the boundary.
            q: (query rows, heads, head_dim) and keys: (cache rows, kv heads, head_dim) of the layer before.
            run: that the layer before belongs to.
        """
        looked = Looked()
        stages = self._stages(layer, kept) if layer in self.layers else {}
        rows = [self._rows(sample, kept[sample], run) for sample in stages]
        last = [one for one in rows if "last" in stages[one.sample].look]
        if last:
            found = last_attention(backend, q, keys, run, last)
            looked = {one.sample: {"last": row} for one, row in zip(last, found, strict=True)}
        for one in rows:
            if "text" in stages[one.sample].look:
                looked.setdefault(one.sample, {})["text"] = text_attention(q, keys, run, one)
            if "keys" in stages[one.sample].look:
                first = run.layout.begin[one.sample]
                own = keys[first + one.visual.start : first + one.visual.stop]
                looked.setdefault(one.sample, {})["keys"] = own
        return looked

    def enter(self, layer: int, kept: Sequence[Kept], x: Tensor, looked: Looked) -> Entered:
        """Selects, and merges, before `layer`.

        Args:
            kept: of each sample, before the boundary.
            x: (rows, hidden), as the layer before leaves them; looked: what `attention` gave.
        """
        stages = self._stages(layer, kept)
        views = self._views(stages, kept, x, looked)
        picks = _to_cpu([stages[sample].selected(view) for sample, view in views.items()])
        now = list(kept)
        for sample, pick in zip(stages, picks, strict=True):
            own, plan = kept[sample], self.plans[sample]
            now[sample] = (*own, plan.checked(len(own), _there(plan, own), pick))
        first, merged = self._first_rows(now), []
        for sample, stage in stages.items():
            if stage.merge is not None:
                view, start = views[sample], first[sample] + self.prompts[sample].visual_start
                index = torch.searchsorted(_there(self.plans[sample], kept[sample]), now[sample][-1])
                states = stage.merged(view, index.to(view.offsets.device))
                merged.append((slice(start, start + stage.count), states))
        return Entered(now, self.runs(kept, now), merged)

    def _stages(self, layer: int, kept: Sequence[Kept]) -> dict[int, Stage]:
        """By sample the stage that it has at a layer."""
        pairs = zip(self.plans, kept, strict=True)
        found = {sample: _next_stage(plan, layer, own) for sample, (plan, own) in enumerate(pairs)}
        return {sample: stage for sample, stage in found.items() if stage is not None}

    def _rows(self, sample: int, kept: Kept, run: Run) -> Rows:
        prompt = self.prompts[sample]
        start, count = prompt.visual_start, len(kept[-1]) if kept else prompt.visual
        behind = len(prompt) - prompt.visual_start - prompt.visual
        return Rows(sample, slice(start, start + count), min(behind, run.queries.lengths[sample]))

    def _first_rows(self, kept: Sequence[Kept]) -> list[int]:
        """Where each sample begins in a packed tensor, whose prompts are computed whole."""
        first, rows = 0, []
        for prompt, own in zip(self.prompts, kept, strict=True):
            rows.append(first)
            first += len(prompt) - (prompt.visual - len(own[-1]) if own else 0)
        return rows

    def _views(self, stages: Mapping[int, Stage], kept: Sequence[Kept], x: Tensor, looked: Looked) -> dict[int, View]:
        """By sample; what goes to the CPU goes there at once, so that there is one wait for the device."""
        parts: dict[tuple[int, str], Tensor] = {
            (sample, name): part for sample, own in looked.items() for name, part in own.items()
        }
        few = [key for key in parts if set(stages[key[0]].look) <= _ON_CPU]
        parts |= dict(zip(few, _to_cpu([parts[key] for key in few]), strict=True))
        first, views = self._first_rows(kept), {}
        for sample, stage in stages.items():
            there = _there(self.plans[sample], kept[sample])
            if "hidden" in stage.look:
                start = first[sample] + self.prompts[sample].visual_start
                parts[sample, "hidden"] = x[start : start + len(there)]
            device = x.device if set(stage.look) - _ON_CPU else there.device
            own = {name: parts[sample, name] for name in stage.look}
            views[sample] = View(there.to(device), **own)
        return views


def _next_stage(plan: Plan, layer: int, kept: Kept) -> Stage | None:
    """The stage that a plan has at a layer, after as many as have kept something."""
    stages = plan.stages[len(kept) : len(kept) + 1]
    return stages[0] if stages and stages[0].layer == layer else None


def _there(plan: Plan, kept: Kept) -> Tensor:
    """Offsets of the visual tokens that are there, (n,) int64 on the CPU."""
    return kept[-1] if kept else torch.arange(plan.visual)


def _to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, all of one type, on the CPU: one transfer, so that the host waits once."""
    if len({tensor.device for tensor in tensors}) != 1 or tensors[0].device.type == "cpu":
        return [tensor.cpu() for tensor in tensors]
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu().split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(flat, tensors, strict=True)]
