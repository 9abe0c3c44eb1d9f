#!/usr/bin/env bash
# The whole pipeline through the command line on random files of full size in the released forms (see full_size.py), each
# command timed; results and logs are left in DIR.
#     bash benchmarks/full_size.sh DIR [--shape 7b|tiny] [--scenes 100]
# SAMPLES (1024) are evaluated a method; PYTHON (python3) runs it.
set -euo pipefail
export LC_ALL=C  # a point in $EPOCHREALTIME
folder=$1
shift
here=$(dirname "$0")
python=${PYTHON:-python3}
samples=${SAMPLES:-1024}
timed() {  # LABEL COMMAND...: its seconds, and the most GPU memory in use meanwhile
    local label=$1 start=$EPOCHREALTIME watcher=
    shift
    : > "$folder.memory"
    if command -v nvidia-smi > /dev/null; then
        nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits --loop-ms=200 > "$folder.memory" & watcher=$!
    fi
    local status=0
    "$@" || status=$?
    [ -z "$watcher" ] || { kill "$watcher"; wait "$watcher" 2> /dev/null || true; }
    "$python" - "$start" "$EPOCHREALTIME" "$folder.memory" "$label" >> "$folder.times" <<'P'
import pathlib, sys

seconds = float(sys.argv[2]) - float(sys.argv[1])
memory = max(map(int, pathlib.Path(sys.argv[3]).read_text().split()), default=0)
print(f"{sys.argv[4]}: {seconds:.1f} s, at most {memory / 1024:.1f} GiB on the GPU")
P
    return $status
}
fast3d() { timed "fast3d ${*:1:3}" "$python" -m fast3d_cli "$@" --config "$folder/fast3d.yaml" >> "$folder.log" 2>&1; }

rm -f "$folder.times" "$folder.log"
timed "writing the files" "$python" "$here/full_size.py" files "$folder" --scenes 100 "$@"
timed "loading the model" "$python" "$here/full_size.py" loading "$folder" | tee -a "$folder.log"
fast3d extract --split all
fast3d train-gap --epochs 1
fast3d predict
# Random weights never end an answer.
short=(--set generation.max_new_tokens=16 --set generation.min_length=17)
fast3d doctor --method vanilla --method sap "${short[@]}" || [ $? = 1 ]  # it finds that the tokenizer is not LLaMA's

alpha=$("$python" -m fast3d_cli search-alpha --target 90 --json --config "$folder/fast3d.yaml" 2>> "$folder.log" |
    "$python" -c "import json, sys; print(json.load(sys.stdin)['alpha'])")
fast3d eval --method vanilla --method fastv --method gap --preset 90 "${short[@]}" --limit "$samples" --no-meteor
fast3d eval --method sap --alpha "$alpha" "${short[@]}" --limit "$samples" --no-meteor
fast3d report
"$python" - "$folder/runs" <<'P'
import json, pathlib, sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("*/result.json")):
    result = json.loads(path.read_text())
    print(f"{path.parent.name}: {result['timing']['samples_per_second']:.1f} samples/s")
P
cat "$folder.times"
