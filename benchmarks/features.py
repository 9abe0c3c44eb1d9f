"""Times reading the object features of all scenes, as released and as packed by `fast3d convert`.

    python benchmarks/features.py DIR [--scenes 1500] [--width 1024] [--out FILE.json]

Random features of 100 objects a scene are written to DIR in the released form, unless they are there; 1500 scenes are
150,000 objects x 2 x 1024 numbers, about ScanNet's. Each form is read in a process of its own: first what every command
does, then all scenes. `seconds` are of the clock, `cpu_seconds` of the processor: on a busy machine they differ.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from fast3d_cli.search_path import python_arguments
from fast3d_core.config import load_config
from fast3d_core.convert import convert, plan_conversions
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D, packed_file

OBJECTS = 100

READ = """
import json, sys, time
from pathlib import Path
import torch
from fast3d_core.data.annotations import Scenes

def memory():  # of this process, in MB; 0 where the system does not say
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024

def measured(work):
    clock, processor, before = time.perf_counter(), time.process_time(), memory()
    done = work()
    return done, {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - processor,
                  "memory_mb": memory() - before}

scenes, opening = measured(lambda: Scenes(Path(sys.argv[1])))
names = [f"scene{i:04}_00" for i in range(int(sys.argv[2]))]
_, everything = measured(lambda: [scenes[name] for name in names] and None)
print(json.dumps({"open": opening, "all_scenes": everything}))
"""


class _Silent:
    def start(self, source: Path, stage: str, total: int) -> None: ...

    def advance(self) -> None: ...

    def done(self, source: Path) -> None: ...


def write_released(folder: Path, scenes: int, width: int) -> None:
    """The two released files, every feature a tensor of its own."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FEATURES_3D, FEATURES_2D):
        if not (folder / name).exists():
            rows = torch.randn(scenes, OBJECTS, width)
            features = {f"scene{i:04}_00_{o:02}": rows[i, o].clone() for i in range(scenes) for o in range(OBJECTS)}
            torch.save(features, folder / name)


def read(folder: Path, scenes: int) -> dict[str, Any]:
    """What reading takes in a process of its own."""
    command = [sys.executable, *python_arguments(READ, [str(folder), str(scenes)])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    write_released(given.folder, given.scenes, given.width)
    packed = [packed_file(given.folder / name) for name in (FEATURES_3D, FEATURES_2D)]
    for path in packed:
        path.unlink(missing_ok=True)
    (given.folder / "fast3d.yaml").write_text("data: {annotations: .}\n")
    figures: dict[str, Any] = {"scenes": given.scenes, "torch": torch.__version__}
    figures["released"] = read(given.folder, given.scenes)
    clock, processor = time.perf_counter(), time.process_time()
    convert(plan_conversions(load_config(given.folder / "fast3d.yaml"), ["features"]), _Silent())
    figures["convert"] = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - processor}
    figures["packed"] = read(given.folder, given.scenes)
    text = json.dumps(figures, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
