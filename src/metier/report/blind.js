"use strict";
const { page, items } = JSON.parse(document.getElementById("values").textContent);
const verdicts = new Map();
const byId = (id) => document.getElementById(id);
const says = [...document.querySelectorAll("[data-say]")];
let at = 0;
let saved = true;

function show() {
  const item = items[at];
  for (const name of ["question", "one", "two"]) byId(name).textContent = item[name];
  for (const button of says) button.setAttribute("aria-pressed", String(verdicts.get(item.key) === button.dataset.say));
  const state = saved ? "" : verdicts.size === items.length ? ": please save" : ", not saved yet";
  byId("progress").textContent = `pair ${at + 1} of ${items.length}, ${verdicts.size} judged${state}`;
  byId("back").disabled = at === 0;
  byId("skip").disabled = at === items.length - 1;
}

function go(step) {
  at = Math.min(Math.max(at + step, 0), items.length - 1);
  show();
  window.scrollTo(0, 0);
}

function say(verdict) {
  verdicts.set(items[at].key, verdict);
  saved = false;
  go(1);
}

function save() {
  const text = JSON.stringify({ format: 1, page, verdicts: Object.fromEntries(verdicts) }, null, 2);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `verdicts-${page}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  saved = true;
  show();
}

for (const button of says) button.addEventListener("click", () => say(button.dataset.say));
byId("back").addEventListener("click", () => go(-1));
byId("skip").addEventListener("click", () => go(1));
byId("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  const verdict = { 1: "one", 2: "two", 0: "tie" }[event.key];
  if (verdict && !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey) say(verdict);
});
window.addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
show();
