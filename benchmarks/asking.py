"""Times `fast3d_core.Asker`, which `fast3d ask --interactive` is, on questions of the config's val split.

    python benchmarks/asking.py [--questions 30] [--alpha 0.6746] [--config FILE]

Asks the first questions of each dataset, scene by scene, by SAP and unpruned, everything loaded; prints the seconds of
an answer, from the typed text to the text of the answer.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fast3d_core import Asker, Sample, load_config, load_samples
from fast3d_core.pruning import Pruner, Sap, Vanilla
from fast3d_core.pruning.options import run_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=30, help="of each dataset")
    parser.add_argument("--alpha", type=float, default=0.6746, help="of SAP; 0.6746 prunes 90 percent of the demo")
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    asker = Asker(config)
    samples = [
        sample
        for dataset in config.data.datasets
        for sample in load_samples(config.data.annotations, dataset)[: arguments.questions]
    ]
    samples.sort(key=lambda sample: sample.scene_id)
    for pruner in (Sap(arguments.alpha), Vanilla()):
        asker.load(pruner)
        seconds = sorted(answer_seconds(asker, samples, pruner))
        middle, most = seconds[len(seconds) // 2], seconds[int(0.95 * len(seconds))]
        times = f"median {middle:.3f} s, p95 {most:.3f}, max {seconds[-1]:.3f}"
        print(f"{run_name(pruner)}: {len(seconds)} answers, {times}")


def answer_seconds(asker: Asker, samples: Sequence[Sample], pruner: Pruner) -> list[float]:
    replies = [asker.ask(sample.prompt, sample.scene_id, pruner, "plain") for sample in samples]
    return [reply.seconds["end_to_end"] for reply in replies]


if __name__ == "__main__":
    main()
