"use strict";
// The charts, drawn by Chart.js; page.css has their colours.

/* global Libraries, element, byId, styled, onTheme, human, percent, tableOf */

const { Chart } = Libraries;
Chart.register(
  Libraries.ScatterController, Libraries.BarController, Libraries.LinearScale, Libraries.CategoryScale,
  Libraries.PointElement, Libraries.LineElement, Libraries.BarElement, Libraries.Legend, Libraries.Tooltip,
);

/** How a method is drawn: title, colour and marker, of predictions of no method too. */
function methodStyle(methods, name) {
  const found = methods.find((one) => one.name === name);
  if (!found) return { title: name ?? "scored", colour: styled("other"), marker: "star" };
  return { ...found, colour: matchMedia("(prefers-color-scheme: dark)").matches ? found.dark : found.light };
}

/** Draws the interval, low to high, of every point that has one. */
const errorBars = {
  id: "errorBars",
  beforeDatasetsDraw(chart) {
    const { ctx, data, scales, chartArea } = chart;
    ctx.save();
    ctx.beginPath();
    ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
    ctx.clip();
    data.datasets.forEach((dataset, number) => {
      if (!chart.isDatasetVisible(number)) return;
      ctx.strokeStyle = dataset.borderColor;
      ctx.lineWidth = 1.5;
      for (const { x, low, high } of dataset.data) {
        if (low === null || low === undefined) continue;
        const [middle, bottom, top] = [scales.x.getPixelForValue(x), scales.y.getPixelForValue(low), scales.y.getPixelForValue(high)];
        ctx.beginPath();
        for (const end of [bottom, top]) {
          ctx.moveTo(middle - 4, end);
          ctx.lineTo(middle + 4, end);
        }
        ctx.moveTo(middle, bottom);
        ctx.lineTo(middle, top);
        ctx.stroke();
      }
    });
    ctx.restore();
  },
};

/** A percentage is never negative, whatever room is left below the least. */
function afterDataLimits(scale) {
  scale.min = Math.max(0, scale.min);
}

/** Options that all charts share: axes with titles, in the colours of the page. */
function options(x, y, { label, legend = true, ticks = (value) => value } = {}) {
  const [ink, faint, line] = ["ink", "faint", "line"].map(styled);
  const axis = (title, more) => ({
    type: "linear", title: { display: true, text: title, color: faint }, ticks: { color: faint, maxRotation: 0 },
    grid: { color: line }, border: { color: line }, ...more,
  });
  return {
    animation: false, responsive: true, maintainAspectRatio: false,
    scales: { x: axis(x, { ticks: { color: faint, maxRotation: 0, callback: ticks } }), y: axis(y, { grace: "5%", afterDataLimits }) },
    plugins: {
      legend: { display: legend, position: "bottom", labels: { color: ink, usePointStyle: true, boxHeight: 7, padding: 14 } },
      tooltip: { callbacks: { label } },
    },
  };
}

/** The runs as points, a list of {x, y, low, high, name} for each method; without those that lack a number. */
function points(report, methods, measure, xOf) {
  const groups = [];
  for (const published of [false, true]) {
    for (const method of [...methods.map(({ name }) => name), null]) {
      const found = report.rows
        .filter((row) => row.published === published && row.method === method)
        .map((row) => ({ x: xOf(row), name: row.name, estimate: measure === "ratio" ? row.ratio : row.scores[measure] }))
        .filter(({ x, estimate }) => x !== null && estimate && estimate.value !== null)
        .map(({ x, name, estimate }) => ({ x, name, y: estimate.value, low: estimate.low, high: estimate.high }))
        .sort((a, b) => a.x - b.x);
      if (found.length) groups.push({ method, published, found });
    }
  }
  return groups;
}

/** Chart.js's datasets of those points. */
function methodDatasets(groups, methods) {
  return groups.map(({ method, published, found }) => {
    const { title, colour, marker } = methodStyle(methods, method);
    return {
      label: `${title}${published ? " (published)" : ""}`,
      data: found, showLine: true, pointStyle: marker, radius: 5, hoverRadius: 7, pointBorderWidth: 2,
      borderColor: colour, backgroundColor: published ? "transparent" : colour, borderWidth: 1.5,
      borderDash: published ? [4, 4] : [],
    };
  });
}

/** Accuracy against pruning ratio, FLOPs and time, of the measure that the reader chooses. */
function accuracyCharts({ report, methods }) {
  const measures = Object.entries(report.columns);
  if (report.rows.some((row) => !row.published && row.ratio.value !== null)) measures.unshift(["ratio", "score ratio"]);
  const select = byId("measure");
  select.append(...measures.map(([value, title]) => element("option", { value }, title)));
  const axes = [
    ["by-ratio", "visual tokens pruned, %", (row) => row.pruning_ratio, undefined],
    ["by-flops", "FLOPs per sample", (row) => row.flops, human],
    ["by-time", "seconds per sample", (row) => (row.samples_per_second ? 1 / row.samples_per_second : null), human],
  ];
  const charts = axes.map(([id, title, xOf, ticks]) => {
    const draw = () => {
      Chart.getChart(id)?.destroy();
      const groups = points(report, methods, select.value, xOf);
      const measure = `${select.selectedOptions[0]?.textContent ?? ""}, %`;
      const label = ({ raw }) => `${raw.name}: ${raw.y.toFixed(2)}${raw.low === null ? "" : ` (${raw.low.toFixed(1)} to ${raw.high.toFixed(1)})`}`;
      const drawn = new Chart(id, {
        type: "scatter", data: { datasets: methodDatasets(groups, methods) }, plugins: [errorBars],
        options: options(title, measure, { label, ticks }),
      });
      // Bars may reach beyond the points, which the scale is made for.
      const ends = groups.flatMap(({ found }) => found.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]));
      drawn.options.scales.y.suggestedMin = Math.min(...ends);
      drawn.options.scales.y.suggestedMax = Math.max(...ends);
      drawn.update();
      byId(id).ariaLabel = `${measure} against ${title}; the table above has the numbers`;
    };
    return draw;
  });
  const drawAll = () => charts.forEach((draw) => draw());
  select.addEventListener("change", drawAll);
  onTheme(drawAll);
}

/** A small chart in a new figure of `parent`, whose config `made` is called anew for each theme. */
function smallChart(parent, title, label, made) {
  const canvas = element("canvas", { role: "img", ariaLabel: `${title}: ${label}` });
  parent.append(element("figure", {}, element("figcaption", {}, title), element("div", { className: "chart small" }, canvas)));
  onTheme(() => {
    if (!canvas.isConnected) return;
    Chart.getChart(canvas)?.destroy();
    new Chart(canvas, made());
  });
}

const BARS = 30; // of a histogram, at most

/** How many objects the samples of each dataset kept, of the run that the reader chooses. */
function keptCharts({ kept, report, methods }) {
  const select = byId("kept-run");
  const runs = [...new Set(kept.map((one) => one.run))];
  select.append(...runs.map((run) => element("option", { value: run }, run)));
  if (!runs.length) {
    byId("kept-none").hidden = false;
    byId("kept-none").textContent = "No run is of a method that keeps more objects of one sample than of another, so there is nothing to show.";
    select.closest("p").hidden = true;
    return;
  }
  select.value = runs.at(-1); // the one that prunes most
  const draw = () => {
    byId("kept-charts").replaceChildren();
    const method = report.rows.find(({ name }) => name === select.value)?.method;
    const colour = () => methodStyle(methods, method).colour;
    kept.filter(({ run }) => run === select.value).forEach((one) => histogram(one, datasetTitle(report, one.dataset), colour));
  };
  select.addEventListener("change", draw);
  draw();
}

function histogram({ samples }, dataset, colour) {
  const total = samples.reduce((a, b) => a + b, 0);
  const mean = samples.reduce((all, count, n) => all + n * count, 0) / total;
  const most = samples.findLastIndex((count) => count > 0);
  const width = Math.ceil(most / BARS);
  const bins = Array.from({ length: Math.ceil(most / width) }, (_, i) => [1 + i * width, (i + 1) * width]);
  const names = bins.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`));
  const counts = bins.map(([from, to]) => samples.slice(from, to + 1).reduce((a, b) => a + b, 0));
  const label = ({ dataIndex }) => `${counts[dataIndex]} of ${total} samples`;
  smallChart(byId("kept-charts"), `${dataset}: mean ${mean.toFixed(1)}, n = ${total}`, "samples by objects kept", () => {
    const made = options("objects kept", "samples, %", { legend: false, label });
    Object.assign(made.scales.x, { type: "category", grid: { display: false }, ticks: { color: styled("faint"), maxRotation: 0 } });
    Object.assign(made.scales.y, { min: 0 });
    const data = counts.map((count) => (100 * count) / total);
    return { type: "bar", data: { labels: names, datasets: [{ data, backgroundColor: colour() }] }, options: made };
  });
}

/** A dataset's name as people write it, which its column's title begins with. */
const datasetTitle = (report, dataset) => (report?.columns[dataset] ?? dataset).split(" ")[0];

/** The extracted attention that the best n objects hold, by prediction and by extraction; and the figures beside it. */
function attentionCharts({ agreements, report }) {
  if (!agreements.length) {
    byId("attention-none").hidden = false;
    byId("attention-none").textContent = "There are no predicted and extracted maps of the same dataset; the notes above say which are missing.";
    return;
  }
  for (const { dataset, predicted, extracted } of agreements) {
    const dots = (curve) => curve.map((share, x) => ({ x, y: 100 * share }));
    const label = ({ raw, dataset: { label: which } }) => `the ${raw.x} objects ${which}: ${raw.y.toFixed(1)}%`;
    smallChart(byId("attention-charts"), datasetTitle(report, dataset), "extracted attention on the first n objects", () => {
      const made = options("n objects", "attention, %", { legend: false, label });
      Object.assign(made.scales.y, { min: 0, max: 100, grace: 0 });
      const curve = { showLine: true, radius: 0, hoverRadius: 4, hitRadius: 8, borderWidth: 2, pointStyle: "line" };
      return { type: "scatter", options: made, data: { datasets: [
        { ...curve, label: "ranked by GAP", data: dots(predicted), borderColor: styled("predicted") },
        { ...curve, label: "that have most", data: dots(extracted), borderColor: styled("faint"), borderDash: [6, 4] },
      ] } };
    });
  }
  const tops = Object.keys(agreements[0].quality.f1);
  const column = (title, cell) => ({ title, cells: agreements.map((one) => [cell(one)]) });
  byId("attention-table").append(tableOf({
    caption: "Predicted against extracted maps, mean over samples: divergence (KL, in nats), F1 of the top objects, and Spearman's rank correlation.",
    columns: [
      column("Dataset", ({ dataset }) => datasetTitle(report, dataset)),
      column("n", ({ quality }) => quality.samples),
      column("KL", ({ quality }) => quality.kl.toFixed(3)),
      ...tops.map((k) => column(`F1 of top ${k}`, ({ quality }) => percent(quality.f1[k]))),
      column("rank correlation", ({ quality }) => quality.rank_correlation.toFixed(3)),
    ],
  }));
}
