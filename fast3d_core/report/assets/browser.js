"use strict";
// The scene browser: scene and question, the slider, the answers of all runs side by side.

/* global element, byId, styled, onTheme, percent, Room, shares, rulesOf, datasetTitle */

const SLIDER = -1; // in place of a run's position: the room shows what the slider keeps

class SceneBrowser {
  constructor({ browser, report, methods, judged_by: judgedBy }) {
    this.methods = methods;
    Object.assign(this, browser, { report, judgedBy });
    byId("browser").hidden = false;
    try {
      this.room = new Room(byId("room"), (slot) => this.point(slot));
    } catch (error) { // no WebGL
      byId("room").append(element("p", { className: "failed" }, `This browser draws no 3D (${error.message}); what is kept and answered stands beside it.`));
    }
    byId("scene").append(...this.scenes.map(({ id }, i) => element("option", { value: i }, id)));
    byId("scene").addEventListener("change", () => this.chooseScene(Number(byId("scene").value)));
    byId("question").addEventListener("change", () => this.chooseQuestion(Number(byId("question").value)));
    byId("differ").addEventListener("change", () => this.chooseScene(this.sceneNumber));
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("rule").addEventListener("change", () => this.chooseRule(byId("rule").value));
    byId("slider").addEventListener("input", () => this.see(SLIDER));
    byId("names").addEventListener("change", () => this.paint());
    onTheme(() => this.legend());
    this.open(location.hash);
    addEventListener("hashchange", () => this.open(location.hash));
  }

  /** Shows the question of a link such as #scanqa-12, else the first one. */
  open(hash) {
    const found = /^#([a-z0-9]+)-(\d+)$/.exec(hash);
    if (!found && this.question) return; // a section's link
    for (const [number, { questions }] of this.scenes.entries()) {
      const at = questions.findIndex(({ dataset, index }) => found && dataset === found[1] && index === Number(found[2]));
      if (at < 0) continue;
      byId("differ").checked = false;
      this.chooseScene(number, at);
      byId("scenes").scrollIntoView();
      return;
    }
    this.chooseScene(0);
  }

  chooseScene(number, question = null) {
    this.sceneNumber = number;
    this.scene = this.scenes[number];
    byId("scene").value = number;
    const all = [...this.scene.questions.keys()];
    const differing = all.filter((i) => new Set(this.scene.questions[i].answers.map(({ text }) => text)).size > 1);
    this.listed = byId("differ").checked && differing.length ? differing : all;
    const groups = new Map();
    for (const i of this.listed) {
      const { dataset, prompt } = this.scene.questions[i];
      if (!groups.has(dataset)) groups.set(dataset, element("optgroup", { label: datasetTitle(this.report, dataset) }));
      groups.get(dataset).append(element("option", { value: i }, prompt));
    }
    byId("question").replaceChildren(...groups.values());
    this.room?.show(this.scene);
    this.chooseQuestion(question ?? this.listed[0]);
  }

  /** The question before or behind this one, in the next scene where there is none. */
  step(by) {
    const at = this.listed.indexOf(this.questionNumber) + by;
    if (this.listed[at] !== undefined) return this.chooseQuestion(this.listed[at]);
    this.chooseScene((this.sceneNumber + by + this.scenes.length) % this.scenes.length);
    if (by < 0) this.chooseQuestion(this.listed.at(-1));
  }

  chooseQuestion(number) {
    this.questionNumber = number;
    this.question = this.scene.questions[number];
    byId("question").value = number;
    byId("prompt").textContent = this.question.prompt;
    byId("expected").textContent = this.expected();
    this.share = shares(this.question);
    const before = this.rule && { id: this.rule.id, value: this.rule.positions[this.position] };
    this.rules = rulesOf(this.question, this.runs, this.slots, this.methods);
    byId("slider-box").hidden = !this.rules.length;
    const rule = byId("rule").value;
    byId("rule").replaceChildren(...this.rules.map(({ id, title }) => element("option", { value: id }, title)));
    if (this.rules.some(({ id }) => id === rule)) byId("rule").value = rule;
    if (this.shown === SLIDER && this.rules.length) { // from question to question at one alpha, or as near as can be
      const same = this.rules.find(({ id }) => id === before?.id);
      if (same) this.setSlider(same, nearest(same.positions, before.value));
      return this.see(SLIDER);
    }
    const pruned = this.question.answers.filter(({ kept }) => kept);
    const first = pruned.find(({ run }) => run === this.shown) ?? pruned.at(-1) ?? this.question.answers[0];
    this.see(first.run);
  }

  expected() {
    const { expected, targets } = this.question;
    if (!this.report) return ""; // nobody knows
    if (!expected) return targets.length ? `Asked for: ${targets.length} objects, outlined` : "Asked for: no object";
    return `Expected: ${expected.map((text) => this.readable(text)).join(" / ")}`;
  }

  chooseRule(id) {
    byId("rule").value = id;
    const rule = this.rules.find((one) => one.id === id);
    this.setSlider(rule, this.startOf(rule));
    this.see(SLIDER);
  }

  /** As near as can be to what the runs of that rule do. */
  startOf(rule) {
    const start = Math.max(...this.runs.map((run) => rule.startOf(run)));
    return start < 0 ? Math.floor(rule.positions.length / 2) : start;
  }

  setSlider(rule, position) {
    const slider = byId("slider");
    Object.assign(slider, { min: 0, max: rule.positions.length - 1, step: 1, value: position });
    byId("slider-name").textContent = rule.name;
    this.sliderOf = rule.id;
  }

  /** Shows what a run kept, or what the slider would keep. The slider goes to the run's setting where it has one. */
  see(shown) {
    this.shown = shown;
    const run = this.runs[shown];
    for (const rule of run ? this.rules : []) {
      const position = rule.startOf(run);
      if (position < 0) continue;
      byId("rule").value = rule.id;
      this.setSlider(rule, position);
    }
    this.rule = this.rules.find(({ id }) => id === byId("rule").value);
    if (this.rule && this.sliderOf !== this.rule.id) this.setSlider(this.rule, this.startOf(this.rule));
    this.position = Number(byId("slider").value);
    const answer = this.question.answers.find((one) => one.run === shown);
    const everything = this.scene.boxes.map((_, slot) => slot);
    this.kept = new Set(answer ? answer.kept ?? everything : this.rule.kept(this.position));
    this.named = new Set(answer?.named ?? []);
    this.listAnswers();
    this.listObjects();
    this.tellSlider();
    this.paint();
  }

  tellSlider() {
    if (!this.rule) return;
    const kept = this.rule.kept(this.position);
    const shown = this.rule.shown(this.position);
    byId("slider-value").textContent = shown;
    byId("slider").setAttribute("aria-valuetext", `${this.rule.name} ${shown}, ${kept.length} objects kept`);
    const names = kept.slice(0, 12).map((slot) => this.nameOf(slot)).join(", ");
    byId("would").textContent =
      `${kept.length} of ${this.slots} object slots would stay, ${this.rule.ratio(this.position).toFixed(1)}% of the visual ` +
      `tokens pruned: ${names}${kept.length > 12 ? ", ..." : ""}`;
  }

  listAnswers() {
    const rows = this.question.answers.map(({ run, text, score, kept }) => {
      const [kind, mark] = this.verdict(score);
      return this.choice(run, this.runs[run].name, element("span", { className: `mark ${kind}` }, mark),
        this.readable(text) || "(no answer)", kept ? `kept ${kept.length}` : "kept all");
    });
    if (this.rule) {
      rows.push(this.choice(SLIDER, "the slider", "", "shows what would be kept; what would be answered is not known", ""));
    }
    const had = document.activeElement?.name === "shown";
    byId("answers").replaceChildren(...rows);
    const chosen = byId("answers").querySelector("input:checked");
    if (had) chosen?.focus();
    if (chosen) byId("answers").scrollTop = chosen.closest(".answer").offsetTop - byId("answers").clientHeight / 2;
  }

  choice(run, name, mark, text, kept) {
    const input = element("input", { type: "radio", name: "shown", value: run, checked: run === this.shown });
    input.addEventListener("change", () => this.see(run));
    return element("label", { className: "answer" }, input,
      element("span", { className: "run" }, name, " ", element("span", { className: "kept" }, kept)), mark,
      element("span", { className: "text" }, text));
  }

  /** Right, wrong, or a figure between, in a word and a sign as well as in a colour. */
  verdict(score) {
    const metric = this.judgedBy[this.question.dataset];
    if (metric === undefined) return ["", ""];
    if (score === null) return ["partly", "not scored"];
    if (score > 0.999) return ["right", "✓ right"];
    if (score < 0.0005) return ["wrong", "✗ wrong"];
    return ["partly", `◐ ${metric} ${(100 * score).toFixed(0)}`];
  }

  listObjects() {
    const order = this.scene.boxes.map((_, slot) => slot);
    if (this.share) order.sort((a, b) => this.share[b] - this.share[a]);
    const head = element("tr", {}, ...["Object", "Attention", "Kept by"].map((title) => element("th", { scope: "col" }, title)));
    const rows = order.map((slot) => {
      const by = this.question.answers.filter(({ kept }) => !kept || kept.includes(slot)).map(({ run }) => this.runs[run].name);
      return element("tr", { className: this.kept.has(slot) ? "" : "pruned" }, element("td", {}, this.nameOf(slot)),
        element("td", {}, this.share ? percent(this.share[slot]) : "-"), element("td", {}, by.join(", ")));
    });
    byId("objects").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  }

  paint() {
    this.room?.paint({
      kept: this.kept, named: this.named, targets: this.question.targets, share: this.share, names: byId("names").value,
    });
    this.point(null);
  }

  point(slot) {
    if (slot === null) {
      byId("pointed").textContent = "";
      return;
    }
    const parts = [this.nameOf(slot)];
    if (this.share) parts.push(`${percent(this.share[slot])} of the predicted attention`);
    parts.push(this.kept.has(slot) ? "kept" : "pruned");
    byId("pointed").textContent = parts.join(" · ");
  }

  nameOf(slot) {
    return `${this.scene.labels[slot] ?? "empty slot"} ${slot}`;
  }

  /** A text whose <OBJ017> tell what they are. */
  readable(text) {
    return text.replace(/<OBJ(\d{3})>/g, (whole, slot) =>
      this.scene.labels[Number(slot)] === undefined ? whole : `${whole} (${this.scene.labels[Number(slot)]})`);
  }

  legend() {
    const ramp = element("i", { className: "swatch ramp" });
    ramp.style.background = `linear-gradient(to right, ${styled("ramp").split(" ").join(",")})`;
    const item = (swatch, text) => element("span", {}, swatch, text);
    byId("room-legend").replaceChildren(
      item(ramp, "predicted attention, from 1/1000 of the most"),
      item(element("i", { className: "swatch pruned" }), "pruned"),
      item(element("i", { className: "swatch target" }), this.report ? "asked for (true box)" : "named in the question"),
      item(element("i", { className: "swatch named" }), "named in the answer"),
    );
  }
}

/** The index of the number that is nearest to `value`. */
function nearest(numbers, value) {
  return numbers.reduce((best, number, i) => (Math.abs(number - value) < Math.abs(numbers[best] - value) ? i : best), 0);
}
