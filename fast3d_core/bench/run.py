"""`fast3d bench`: times methods, and baselines, on one model, row by row."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from fast3d_core.bench.baselines import attention_of
from fast3d_core.bench.measure import Machine, PeakMemory
from fast3d_core.bench.passes import Pass, fast_pass, in_a_row, stock_pass
from fast3d_core.bench.result import REUSE, BenchResult, BenchRow, MeasuredRates, ratios
from fast3d_core.bench.rows import build_row
from fast3d_core.bench.subject import Batch, Subject, predicted_maps
from fast3d_core.config import GenerationConfig
from fast3d_core.errors import DataError, NotFiniteError, PlanError
from fast3d_core.evaluation.result import describe_environment
from fast3d_core.maps.kind import AttentionMap
from fast3d_core.models.registry import check_shares_prefix
from fast3d_core.plan import Units
from fast3d_core.pruning import BASELINE, METHODS, Pruner
from fast3d_core.pruning.alpha_search import nearest
from fast3d_core.pruning.options import MethodOptions, build_pruners, settings_taken
from fast3d_core.runtime.devices import out_of_memory_says


@dataclass(frozen=True)
class BenchOptions:
    """What is measured.

    Attributes:
        methods: names; batches: sizes, each for every method.
        ratio: layer-averaged percentage that the methods prune; an alpha is searched for it.
        repeats: batches that are timed, alone and in a row; warmup: how often they are answered before (one batch,
            once, for a baseline). What is captured once for batches of about a size is captured then.
        baselines: stock transformers, too.
        reuse_scene: every method also with what stands before the questions computed once a scene.
        seed: of methods that draw at random; method_settings: others that were given, by name.
    """

    methods: Sequence[str]
    batches: Sequence[int]
    ratio: float = 90
    repeats: int = 5
    warmup: int = 2
    baselines: bool = False
    reuse_scene: bool = False
    seed: int = 0
    method_settings: Mapping[str, Any] = field(default_factory=dict)


def build_methods(options: BenchOptions, layers: int, units: Units, alpha: float = 1) -> list[Pruner]:
    """The methods, at the ratio, for an LLM of `layers` layers and prompts of these units.

    Args:
        alpha: of methods that take one; any will do to see whether the options can be meant.

    Raises:
        UsageError: a method or the ratio makes no sense here.
    """
    given: dict[str, Any] = {"seed": options.seed, **options.method_settings}
    everything = MethodOptions(ratio=options.ratio, alphas=(alpha,), settings=given)
    return [
        pruner
        for method in options.methods
        for pruner in build_pruners([method], everything.taken_by([method]), layers, units)
    ]


def _plain(options: BenchOptions) -> dict[str, Any]:
    """The options as a result has them: settings of methods are there where any was given."""
    plain = asdict(options)
    return plain if plain["method_settings"] else {k: v for k, v in plain.items() if k != "method_settings"}


class Bench:
    """Measures row after row.

    Args:
        settings: of beam search. Every answer has `max_new_tokens` tokens: none may end before.
        log: called with what is being timed; saved: called with the result so far, at first without rows, then after
            each.

    Raises:
        UsageError: the methods or the ratio make no sense here.
    """

    def __init__(
        self,
        subject: Subject,
        settings: GenerationConfig,
        options: BenchOptions,
        log: Callable[[str], None] = lambda _: None,
        saved: Callable[[BenchResult], None] = lambda _: None,
    ):
        self._subject, self._options, self._log, self._saved = subject, options, log, saved
        # With more tokens asked for than may be, EOS is forbidden in each of them.
        self._settings = replace(settings, min_length=settings.max_new_tokens + 1)
        self._device = subject.model.device
        self._methods()  # raises here, before anything is timed
        if options.reuse_scene:
            check_shares_prefix(type(subject.model), "--reuse-scene")
        self._machine = Machine(self._device, subject.model.llm.dtype)
        self._result = self._without_rows()
        saved(self._result)

    def run(self) -> BenchResult:
        """All rows, ours first; one that does not fit the memory is left out, and noted.

        Raises `DataError` where no row fits.
        """
        options, pruners = self._options, dict[int, list[Pruner]]()
        for size in options.batches:
            alpha = self._alpha(size) if "alpha" in settings_taken(options.methods) else 1
            pruners[size] = self._methods(alpha)
            for pruner in pruners[size]:
                self._measure(pruner.name, size, pruner, self._fast)
                if options.reuse_scene:
                    self._measure(pruner.name + REUSE, size, pruner, self._reusing, reuse_scene=True)
        if options.baselines:
            for size in options.batches:
                self._baselines(size, next((pruner for pruner in pruners[size] if pruner.drops_at_entry), None))
        if not self._result.rows:
            raise DataError("; ".join(self._result.notes))
        return self._result

    def _without_rows(self) -> BenchResult:
        model, rates = self._subject.model, self._machine
        return BenchResult(
            llm=self._subject.name,
            shape=asdict(model.shape),
            dtype=str(model.llm.dtype).removeprefix("torch."),
            settings={
                **_plain(self._options),
                "generation": asdict(self._settings),
                "objects": model.units.count,
                "questions": self._subject.questions,
            },
            environment=describe_environment(self._device, 1, model.engine.attention),
            rates=MeasuredRates(rates.llm.flops, rates.gap.flops, rates.llm.bytes),
        )

    def _methods(self, alpha: float = 1) -> list[Pruner]:
        model = self._subject.model
        return build_methods(self._options, model.shape.layers, model.units, alpha)

    def _timed(self) -> range:
        """Numbers of the batches that are timed."""
        return range(self._options.repeats)

    def _alpha(self, size: int) -> float:
        """SAP's, on the maps that the GAP network predicts for the very questions that are timed."""
        assert self._subject.gap is not None
        with out_of_memory_says(
            f"batch {size}: {self._device} is out of memory predicting maps; take a smaller --batch"
        ):
            parts = [predicted_maps(self._subject.gap, self._subject.batch(size, number)) for number in self._timed()]
            maps = AttentionMap("logits", torch.cat([part.logits() for part in parts]))
        target = self._options.ratio
        return min(nearest({"bench": maps}, target), key=lambda found: abs(found.ratio - target)).alpha

    def _baselines(self, size: int, pruning: Pruner | None) -> None:
        """The published protocol masks what it prunes, which costs what unpruned tokens cost; so it runs unpruned.

        Args:
            pruning: a method that drops tokens before layer 0, which stock transformers then do not see either.
        """
        llm, everything = self._subject.model.llm, METHODS[BASELINE]()
        if not any(row.name == "published" for row in self._result.rows):
            with attention_of(llm, "eager"):
                self._measure("published", 1, everything, self._published, baseline=True)
        with attention_of(llm, "sdpa"):
            self._measure("stock", size, everything, self._stock, baseline=True)
            if pruning:
                self._measure("stock pruned", size, pruning, self._stock, baseline=True)

    def _in_a_row(self, pruner: Pruner, size: int, reuse_scene: bool) -> list[float]:
        """As many times as batches are timed, on the same ones, after the last of them and with the first behind."""
        before, behind = (self._subject.batch(size, number) for number in (self._timed()[-1], 0))
        batches = [before, *self._subject.batches(size, self._timed()), behind]
        return in_a_row(self._subject, pruner, batches, self._settings, reuse_scene)

    def _fast(self, pruner: Pruner, batch: Batch) -> Pass:
        return fast_pass(self._subject, pruner, batch, self._settings)

    def _reusing(self, pruner: Pruner, batch: Batch) -> Pass:
        return fast_pass(self._subject, pruner, batch, self._settings, reuse_scene=True)

    def _stock(self, pruner: Pruner, batch: Batch) -> Pass:
        return stock_pass(self._subject, pruner, batch, self._settings)

    def _published(self, pruner: Pruner, batch: Batch) -> Pass:
        return stock_pass(self._subject, pruner, batch, self._settings, attentions=True)

    def _measure(
        self,
        name: str,
        size: int,
        pruner: Pruner,
        answer: Callable[[Pruner, Batch], Pass],
        *,
        baseline: bool = False,
        reuse_scene: bool = False,
    ) -> None:
        """Adds a row, or a note on why there is none. Warm-up and memory are its own: no row leaves anything behind."""
        self._log(f"timing {name}, batch {size}")
        self._subject.model.release()
        if self._subject.gap:
            self._subject.gap.release()
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        try:
            with out_of_memory_says(f"{name}, batch {size}: left out, {self._device} is out of memory"):
                memory = PeakMemory(self._device)
                start = time.perf_counter()
                for number in [*self._timed()] * self._options.warmup:
                    answer(pruner, self._subject.batch(size, number))
                    if baseline:
                        break
                warmup = time.perf_counter() - start
                passes = [answer(pruner, batch) for batch in self._subject.batches(size, self._timed())]
                row_seconds = [] if baseline else self._in_a_row(pruner, size, reuse_scene)
        except NotFiniteError:
            raise  # the next row would fail alike
        except (DataError, PlanError) as problem:
            why = f"{name}, batch {size}: left out, {problem}" if isinstance(problem, PlanError) else str(problem)
            self._log(why)
            self._result = replace(self._result, notes=[*self._result.notes, why])
        else:
            row = build_row(
                name,
                pruner,
                passes,
                row_seconds,
                self._subject,
                self._settings,
                self._machine,
                baseline=baseline,
                reuse_scene=reuse_scene,
                warmup=warmup,
                memory=memory.bytes(),
            )
            self._add(row)
        self._saved(self._result)

    def _add(self, row: BenchRow) -> None:
        rows = [*self._result.rows, row]
        self._result = replace(self._result, rows=rows, ratios=ratios(rows))
