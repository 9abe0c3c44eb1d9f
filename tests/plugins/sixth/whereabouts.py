"""A sixth benchmark, as another package has one: where a thing in a room is. This file is all of it."""

from collections.abc import Sequence

import numpy as np

from fast3d_core.benchmarks import Benchmark, Metric, Record, References, Score, Wording
from fast3d_core.benchmarks.records import mean, record_keys
from fast3d_core.data.annotations import Sample


class Whereabouts(Benchmark):
    """Say where an object is. An answer is right if it holds one of the places that are references."""

    name = "whereabouts"
    title = "Whereabouts"
    hyphenated = "Where-\nabouts"
    headline = Metric("hits", "[whereabouts] hits")
    of_an_object = True
    type_field = "floor"
    wording = Wording(("Where is <question>?",), ending=" Answer with a place.", task="where")

    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """The share of right answers, over all and over those on the ground floor."""
        hits = np.array([_is_right(record) for record in records], dtype=np.float64)
        ground = np.array([record.choice("type_info", ("ground", "upper")) == "ground" for record in records], bool)
        metrics = {self.headline.key: mean(hits), "[whereabouts] ground hits": mean(hits[ground])}
        stats = np.stack([hits, np.ones(len(hits))], axis=1)
        return Score(self.name, len(records), metrics, stats, record_keys(records), [])

    def appended(self, sample: Sample, draw: int) -> str:
        return f"It is {super().appended(sample, draw)}."


def _is_right(record: Record) -> bool:
    answer = record.text("pred").lower()
    return any(place.lower() in answer for place in record.texts("ref_captions"))
