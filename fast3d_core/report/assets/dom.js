"use strict";
// Elements and texts. Whatever comes from the data gets onto the page through `element`, as text.

const byId = (id) => document.getElementById(id);

/** An element with attributes (a property where it has one) and children: elements, or anything else as text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** A colour (or another word) of page.css as it is now, in light or dark. */
const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Calls back now and whenever the reader's system turns light or dark. */
function onTheme(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;

/** Three significant digits and a unit prefix, as the tables have them. */
function human(number) {
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  let power = 0;
  while (Math.abs(number) >= 999.5 && power < prefixes.length - 1) {
    number /= 1000;
    power += 1;
  }
  return `${Number(number.toPrecision(3))} ${prefixes[power]}`.trim();
}

/** A column's heading, in which BLEU-4 stays one word. */
const heading = (title) => element("th", { scope: "col" }, title.replaceAll("-", "\u2011"));

/** A table of columns of short cells: {caption, columns: [{title, cells: [[line, ...], ...]}]}. */
function tableOf({ caption, columns }, rowClass = () => "") {
  const table = element("table");
  table.append(element("thead", {}, element("tr", {}, ...columns.map(({ title }) => heading(title)))));
  const body = element("tbody");
  columns[0].cells.forEach((_, row) => {
    const cells = columns.map(({ cells }) => {
      const [first, ...more] = cells[row];
      return element("td", {}, first, ...more.map((line) => element("small", {}, line)));
    });
    body.append(element("tr", { className: rowClass(row) }, ...cells));
  });
  table.append(body);
  const box = element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption }, table);
  return element("div", {}, box, element("p", { className: "caption" }, caption)); // which does not scroll sideways
}
