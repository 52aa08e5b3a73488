// The conversation: what is typed, and the answers as they come.

import { Answer } from "./answer.js";
import { Refused, stream } from "./api.js";
import { el, find, speak } from "./dom.js";
import { AUTO, all, choices, hasUntuned, isRun, model, readModels } from "./models.js";
import { besideBaseline, verdict } from "./basis.js";

let said = []; // the conversation so far, as the API takes it
let stopping = null; // ends what is being answered
let begun = false;

export async function show() {
  if (!begun) listen();
  begun = true;
  await refresh();
  if (matchMedia("(pointer: fine)").matches) find("question").focus({ preventScroll: true }); // no keyboard over a phone's page
}

/** Whoever is served may have changed while another view was shown. */
async function refresh() {
  const picker = find("model");
  try {
    await readModels();
  } catch (error) {
    find("welcome-said").textContent = error.message;
    return;
  }
  const before = picker.value;
  picker.replaceChildren(...choices());
  if (model(before)) picker.value = before;
  else picker.value = (model(AUTO) ?? all().find((each) => each.parent !== null) ?? all()[0]).id;
  chosen();
  welcome();
}

/** Have somebody answer from now on; `show` tells who is served. */
export async function talkTo(id) {
  await refresh();
  if (model(id)) find("model").value = id;
  chosen();
}

function listen() {
  const question = find("question");
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(question.value);
  });
  question.addEventListener("input", grow);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask(question.value);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && stopping?.abort());
  find("stop").addEventListener("click", () => stopping?.abort());
  find("anew").addEventListener("click", anew);
  find("model").addEventListener("change", chosen);
}

function chosen() {
  const possible = hasUntuned(find("model").value);
  find("beside").disabled = !possible;
  if (!possible) find("beside").checked = false;
}

function welcome() {
  const runs = all().filter(isRun);
  const auto = model(AUTO);
  find("welcome-said").textContent = auto
    ? "Ask about any of these; who answers is chosen by your question."
    : "Choose who answers, and ask.";
  find("served").replaceChildren(...runs.flatMap((run) => run.scores.map((score) => served(run, score))));
}

function served(run, score) {
  const id = run.domains.length > 1 ? `${run.id}/${score.domain}` : run.id;
  const take = () => {
    find("model").value = id;
    chosen();
    find("question").focus();
  };
  const told = [
    el("b", {}, score.domain),
    el("span", { class: "soft" }, run.id),
    el("span", {}, score.said),
    verdict(score),
    besideBaseline(score),
  ];
  return el("li", {}, el("button", { type: "button", onclick: take }, told));
}

function anew() {
  stopping?.abort();
  said = [];
  find("talk").replaceChildren();
  find("welcome").hidden = false;
  speak("A new conversation");
  find("question").focus();
}

async function ask(text) {
  if (!text.trim() || stopping || !find("model").value) return;
  find("question").value = "";
  grow();
  find("welcome").hidden = true;
  const conversation = said;
  const asked = { messages: [...conversation, { role: "user", content: text }], model: find("model").value };
  const sides = find("beside").checked
    ? [new Answer(asked), new Answer({ ...asked, untuned: true })]
    : [new Answer(asked)];
  const turn = el(
    "li",
    { class: "turn" },
    el("div", { class: "asked", dir: "auto" }, text),
    el(
      "div",
      { class: "sides" },
      sides.map((each) => each.node),
    ),
  );
  turn.classList.toggle("beside", sides.length > 1);
  find("talk").append(turn);
  turn.scrollIntoView({ block: "start" });
  await answer(sides);
  if (said !== conversation) return; // another one was begun meanwhile
  if (sides[0].text) said = [...asked.messages, { role: "assistant", content: sides[0].text }];
}

/** Both sides; the base is asked once the run is, and not where no model was. */
async function answer(sides) {
  const [run, base] = sides;
  stopping = new AbortController();
  busy(true);
  speak("Answering");
  let other = null;
  const first = () => {
    if (base && run.isModels) other = hear(base);
    else base?.leave();
  };
  await hear(run, first);
  await other;
  stopping = null;
  busy(false);
  speak(sides.map((each) => each.spoken).join(". "));
}

async function hear(side, first = () => {}) {
  let told = first;
  try {
    for await (const event of stream("/v1/chat/completions", side.body, stopping.signal)) {
      settle(() => side.take(event));
      told();
      told = () => {};
    }
    settle(() => side.end());
  } catch (error) {
    if (error.name === "AbortError") settle(() => side.end("stopped"));
    else settle(() => side.fail(error instanceof Refused ? error.message : "The connection broke off."));
  }
}

function busy(yes) {
  find("send").hidden = yes;
  find("stop").hidden = !yes;
  find("talk").setAttribute("aria-busy", String(yes));
}

/** The box is as high as its text, up to what its style allows. */
function grow() {
  const box = find("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

/** Whoever reads the end goes on seeing it; whoever has scrolled back is left there. */
function settle(change) {
  const near = window.innerHeight + window.scrollY > document.body.scrollHeight - 80;
  change();
  if (near) window.scrollTo(0, document.body.scrollHeight);
}
