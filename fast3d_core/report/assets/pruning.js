"use strict";
// What methods would keep of a question, as fast3d_core/pruning/ decides it; tests hold the two against each other.

/** The fewest objects that reach alpha together. `mass` is summed up from the largest, float32. */
function shareCount(mass, alpha) {
  const wanted = Math.fround(alpha); // torch compares in float32
  return mass.slice(0, -1).filter((sum) => Math.fround(sum) < wanted).length + 1;
}

/** The layer-averaged percentage of visual tokens pruned, of which `layersPart` of the layers see only `kept` objects. */
const prunedPercent = (kept, slots, layersPart) => 100 * layersPart * (1 - kept / slots);

/** Each object's share of the predicted attention, by slot; null without a map. */
function shares({ order, mass }) {
  if (!order) return null;
  const found = new Array(order.length).fill(0);
  order.forEach((slot, rank) => (found[slot] = Math.max(0, mass[rank] - (rank ? mass[rank - 1] : 0))));
  return found;
}

/**
 * The rules that the slider offers for a question, the runs' own settings among them: alpha for every question that has
 * a map, by the first method whose rule is "share", and the ratio for every K and depth of a run whose rule is "rank". A rule has `positions`; `kept(i)`, `shown(i)` and
 * `ratio(i)` tell what position i keeps, is called, and prunes.
 */
function rulesOf(question, runs, slots, methods) {
  if (!question.order) return [];
  const alphas = runs.map((run) => run.alpha?.[question.dataset]).filter((alpha) => alpha !== undefined);
  const steps = Array.from({ length: 100 }, (_, i) => (i + 1) / 100);
  const positions = [...new Set([...steps, ...alphas])].sort((a, b) => a - b);
  const byShare = methods.find(({ rule }) => rule === "share");
  const rules = [{
    id: byShare.name, title: byShare.title, name: "alpha", positions,
    kept: (i) => question.order.slice(0, shareCount(question.mass, positions[i])),
    shown: (i) => String(Number(positions[i].toPrecision(4))),
    ratio: (i) => prunedPercent(shareCount(question.mass, positions[i]), slots, 1),
    startOf: (run) => positions.indexOf(run.alpha?.[question.dataset]),
  }];
  for (const ranked of runs.filter((run) => run.layer !== null)) {
    const id = `${ranked.method}-${ranked.layer}`;
    const title = methods.find(({ name }) => name === ranked.method)?.title ?? ranked.method;
    if (rules.some((rule) => rule.id === id)) continue;
    const counts = Array.from({ length: slots }, (_, i) => slots - i); // so that the ratio grows to the right
    rules.push({
      id, title: `${title}, K = ${ranked.layer}`, name: "ratio", positions: counts,
      kept: (i) => question.order.slice(0, counts[i]),
      shown: (i) => `${prunedPercent(counts[i], slots, ranked.pruning_layers).toFixed(1)}%`,
      ratio: (i) => prunedPercent(counts[i], slots, ranked.pruning_layers),
      startOf: (run) => (run.method === ranked.method && run.layer === ranked.layer ? counts.indexOf(run.keep) : -1),
    });
  }
  return rules;
}
