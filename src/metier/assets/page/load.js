// What the server does at this moment, read off the same counts that Prometheus reads.

import { send } from "./api.js";
import { duration, el, find, svg } from "./dom.js";

const EVERY = 2000; // milliseconds
const KEPT = 60; // looks: two minutes
let watch = null; // one object for as long as the view is shown
let looks = [];

export async function show() {
  const mine = (watch = {});
  looks = [];
  while (watch === mine) {
    await look(mine);
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

export function hide() {
  watch = null;
}

async function look(mine) {
  try {
    const told = parse(await (await send("/metrics")).text());
    looks = [...looks, { at: performance.now() / 1000, told }].slice(-KEPT - 1);
    if (watch === mine) draw(told);
  } catch (error) {
    if (watch === mine) find("load").replaceChildren(el("p", { class: "fault" }, error.message));
  }
}

/** Lines of Prometheus: `name{label="value"} number`. */
function parse(text) {
  const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return lines.map((line) => {
    const [, name, labels, value] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)$/);
    return {
      name,
      labels: Object.fromEntries(
        [...(labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, each]) => [key, each]),
      ),
      value: Number(value),
    };
  });
}

const total = (told, name) => told.filter((each) => each.name === name).reduce((sum, each) => sum + each.value, 0);

/** What grew between two looks, a second. */
function rates(name) {
  return looks
    .slice(1)
    .map((now, index) => (total(now.told, name) - total(looks[index].told, name)) / (now.at - looks[index].at));
}

function draw(told) {
  const tokens = rates("metier_said_tokens_total");
  const steps = rates("metier_steps_total");
  const together = rates("metier_turns_total").map((rate, index) => (steps[index] ? rate / steps[index] : 0));
  const tiles = [
    tile(
      "Requests now",
      looks.map((each) => total(each.told, "metier_decoding")),
      "are being answered",
    ),
    tile(
      "Queue",
      looks.map((each) => total(each.told, "metier_waiting")),
      "wait for a place",
    ),
    tile("Tokens a second", tokens, "of all answers together"),
    tile("Batch occupancy", together, "answers share one step", 1),
  ];
  find("load").replaceChildren(...[el("div", { class: "tiles" }, tiles), since(told), asked(told)].filter(Boolean));
}

function tile(name, values, meaning, digits = 0) {
  const last = values.at(-1);
  const shown = last === undefined ? "…" : last.toFixed(digits);
  return el(
    "div",
    { class: "tile" },
    el("h2", {}, name),
    el("p", { class: "number" }, shown),
    el("p", { class: "soft small" }, meaning),
    spark(values),
  );
}

/** The last two minutes, the newest on the right; hidden from readers that have the number. */
function spark(values) {
  const most = Math.max(1, ...values);
  const points = values.map(
    (value, index) => `${100 - ((values.length - 1 - index) * 100) / KEPT},${30 - (28 * value) / most}`,
  );
  const line = svg("polyline", { points: points.join(" ") });
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 31", preserveAspectRatio: "none", "aria-hidden": "true" },
    line,
  );
}

function since(told) {
  const mean = (name) => total(told, `${name}_sum`) / total(told, `${name}_count`);
  const first = mean("metier_first_token_seconds");
  const whole = mean("metier_answer_seconds");
  if (Number.isNaN(first) && Number.isNaN(whole))
    return el("p", { class: "soft" }, "No model was asked since the server was started.");
  const parts = [
    Number.isNaN(first) ? "" : `the first piece came after ${brief(first)}`,
    Number.isNaN(whole) ? "" : `a whole answer took ${brief(whole)}`,
  ];
  return el("p", {}, `On average ${parts.filter(Boolean).join(", ")}.`);
}

const brief = (seconds) =>
  seconds < 1 ? `${Math.round(1000 * seconds)} ms` : seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds);

function asked(told) {
  const rows = told
    .filter((each) => each.name === "metier_requests_total")
    .sort((one, other) => other.value - one.value);
  if (!rows.length) return null;
  const head = el(
    "thead",
    {},
    el(
      "tr",
      {},
      ["Asked", "by", "how often"].map((name) =>
        el("th", { scope: "col", class: name === "how often" ? "n" : null }, name),
      ),
    ),
  );
  const body = rows.map(({ labels, value }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, labels.model),
      el("td", {}, labels.path),
      el("td", { class: "n" }, value.toLocaleString("en")),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Who was asked since the start" },
    el("table", {}, el("caption", {}, "Who was asked since the server was started"), head, el("tbody", {}, body)),
  );
}
