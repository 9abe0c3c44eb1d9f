#!/usr/bin/env bash
# Measures the demo's methods on its held-out test split, 2,000 samples a task: once a release, logged in
# fast3d_core/demo/README.md. Leaves measured.json (fast3d_core/demo/measured.json), measured.md, exact.txt (ScanQA's
# exact match) and bounds.json in OUT, first for 90%, then for all budgets.
#     bash benchmarks/demo.sh OUT [WORK]
set -euo pipefail
out=$1 work=${2:-$(mktemp -d)}
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
fast3d() { "$python" -m fast3d_cli "$@"; }
mkdir -p "$out"
release() { PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -m tools.demo.release "$@" --train-rooms 0; }
release "$work/val" & val=$!
release "$work/test" --test --rooms 500 --questions 2000 --processes "$(nproc)"
wait $val
"$python" -c "
import json, pathlib, sys
from fast3d_core.demo.world import ceiling
print(json.dumps(ceiling(pathlib.Path(sys.argv[1])), indent=1))" "$work/test/annotations" > "$out/bounds.json" & bounds=$!
alpha() {  # found on val
    fast3d search-alpha --config "$work/val/fast3d.yaml" --target "$1" --json > "$out/alpha-$1.json"
    "$python" -c "import json, sys; print(json.load(open(sys.argv[1]))['alpha'])" "$out/alpha-$1.json"
}
run() { fast3d eval --config "$work/test/fast3d.yaml" --no-meteor --set eval.batch_size=250 "$@"; }
compare() {
    fast3d report --config "$work/test/fast3d.yaml" --json > "$out/measured.json"
    fast3d report --config "$work/test/fast3d.yaml" --format markdown > "$out/measured.md"
    "$python" -c "
import json, pathlib, sys
for result in sorted(pathlib.Path(sys.argv[1]).glob('*/result.json')):
    print(result.parent.name, 'ScanQA EM', 100 * json.loads(result.read_text())['metrics']['[scanqa] EM1'])
" "$work/test/runs" > "$out/exact.txt"
}
run --method vanilla
run --method sap --alpha "$(alpha 90)"
run --method random --method fastv --method gap --preset 90
compare
run --method random --method fastv --method gap --preset 35 --preset 65
run --method sap --alpha "$(alpha 35)" --alpha "$(alpha 65)"
compare
wait $bounds
