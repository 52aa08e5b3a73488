// What a tuning would take, or what is wrong with its file.

import { duration, el, facts, plural, size } from "./dom.js";

/** A file's place on the server says nothing to whoever sent it. */
const plain = (text) => text.replaceAll(/[^\s"]*files\/file-[0-9a-f]{32}\//g, "");

/** Every fault: where, what, how to mend it; `skip` looks again without those rows. */
export function faultTable({ faults, skippable, hint }, skip) {
  const head = el(
    "tr",
    {},
    ["Where", "What is wrong", "How to mend it"].map((name) => el("th", { scope: "col" }, name)),
  );
  const rows = faults.map(({ place, problem, fix }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, plain(place)),
      el("td", { "data-head": "What is wrong" }, problem),
      el("td", { "data-head": "How to mend it" }, fix),
    ),
  );
  const leave =
    skippable && skip
      ? el("button", { type: "button", class: "plain", id: "skip", onclick: skip }, "Leave such rows out")
      : null;
  return el(
    "section",
    { class: "card", id: "faults" },
    el("h2", {}, plural(faults.length, "fault")),
    el(
      "p",
      { class: "soft" },
      "Nothing can be tuned before they are mended. Mend them in your file, and choose it again.",
    ),
    el("table", { class: "stacked" }, el("thead", {}, head), el("tbody", {}, rows)),
    leave ? el("p", { class: "actions" }, leave) : hint && !skippable ? el("p", { class: "soft small" }, hint) : null,
  );
}

/** What was read, whether it fits, how long it takes and why; `start` begins it. */
export function foreseen(told, start) {
  const { plan, domains, recipe, hint } = told;
  const verdict = plan
    ? el(
        "p",
        {},
        el("span", { class: "chip good" }, "no faults"),
        " ",
        el("span", { class: "chip good" }, "it fits"),
        ` about ${duration(sum(plan.seconds))}, ${size(plan.peak)} of memory, ${plural(plan.steps, "step")}`,
      )
    : el("p", {}, el("span", { class: "chip bad" }, "it does not fit"), ` ${hint}`);
  const parts = [
    el("h2", {}, "What it will take"),
    verdict,
    plan && hint ? el("p", { class: "warned" }, hint) : null,
    domains.map(rows),
    leftOut(told.left_out),
    plan ? behind("How it is done, and why", reasons(plan)) : null,
    plan ? behind("Memory and time", costs(plan)) : null,
    behind(
      "How the file was read",
      domains.map((each) => el("pre", { class: "block" }, plain(each.read_as))),
    ),
    behind("The recipe", el("pre", { class: "block" }, plain(recipe))),
    plan ? el("p", { class: "actions" }, start) : null,
  ];
  return el("section", { class: "card", id: "plan" }, parts);
}

const sum = (seconds) => Object.values(seconds).reduce((all, each) => all + each, 0);

function rows(domain) {
  const told = `${plural(domain.train, "row")} to learn from, ${domain.validation} to choose by, ${domain.heldout} held out to measure`;
  return [
    el("p", {}, el("b", {}, domain.name), `: ${told}`),
    domain.warnings.map((each) => el("p", { class: "warned" }, plain(each))),
  ];
}

function leftOut(faults) {
  if (!faults.length) return null;
  const items = faults
    .slice(0, 20)
    .map(({ place, problem, fix }) => el("li", {}, plain(`${place}: ${problem}; ${fix}`)));
  return behind(plural(faults.length, "note"), el("ul", {}, items));
}

function reasons(plan) {
  const body = Object.entries(plan.reasons).map(([key, why]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, key),
      el("td", { "data-head": "value" }, String(plan[key])),
      el("td", { "data-head": "why" }, why),
    ),
  );
  return el(
    "table",
    { class: "stacked" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        ["choice", "value", "why"].map((name) => el("th", { scope: "col" }, name)),
      ),
    ),
    el("tbody", {}, body),
  );
}

function costs({ memory, seconds, largest }) {
  const bytes = Object.entries(memory)
    .filter(([, value]) => value)
    .map(([name, value]) => [name, size(value)]);
  const times = Object.entries(seconds).map(([name, value]) => [name, duration(value)]);
  return [
    el("p", { class: "soft" }, `Most memory is taken in this phase: ${largest}.`),
    facts(bytes),
    el("p", { class: "soft" }, "Time"),
    facts(times),
  ];
}

function behind(name, ...content) {
  return el("details", {}, el("summary", {}, name), content);
}
