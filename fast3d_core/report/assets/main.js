"use strict";
// Puts the data on the page.

/* global element, byId, tableOf, accuracyCharts, keptCharts, attentionCharts, SceneBrowser */

const page = JSON.parse(byId("data").textContent);

document.title = byId("title").textContent = page.title;
const [comparison, ...differences] = page.tables;
byId("tables").append(tableOf(comparison, (row) => (page.report?.rows[row].published ? "published" : "")));
byId("differences").hidden = !differences.length;
byId("differences").append(...differences.map((table) => tableOf(table)));
byId("notes").append(...page.notes.map((note) => element("li", {}, note)));
if (page.report) {
  accuracyCharts(page);
  keptCharts(page);
  attentionCharts(page);
} else {
  oneQuestion();
}
let sceneBrowser = null;
if (page.browser?.scenes.length) {
  sceneBrowser = new SceneBrowser(page);
} else {
  byId("scenes-none").hidden = false;
  byId("scenes-none").textContent = "There are no scenes to show; the notes say why.";
}

/** The page of one question begins with its scene; below stands what each answer took. */
function oneQuestion() {
  for (const id of ["accuracy", "kept", "attention"]) byId(id).remove();
  document.querySelector("nav").remove();
  byId("comparison").querySelector("h2").textContent = "What each answer took";
  byId("comparison").before(byId("scenes"));
  byId("scenes").querySelector("h2").remove();
  byId("choice").hidden = true;
}
