"use strict";
// Puts the data on the page.

/* global element, byId, tableOf, accuracyCharts, keptCharts, attentionCharts, SceneBrowser */

const page = JSON.parse(byId("data").textContent);

const [comparison, ...differences] = page.tables;
byId("tables").append(tableOf(comparison, (row) => (page.report.rows[row].published ? "published" : "")));
byId("differences").hidden = !differences.length;
byId("differences").append(...differences.map((table) => tableOf(table)));
byId("notes").append(...page.notes.map((note) => element("li", {}, note)));
accuracyCharts(page);
keptCharts(page);
attentionCharts(page);
let sceneBrowser = null;
if (page.browser?.scenes.length) {
  sceneBrowser = new SceneBrowser(page);
} else {
  byId("scenes-none").hidden = false;
  byId("scenes-none").textContent = "There are no scenes to show; the notes at the top say why.";
}
