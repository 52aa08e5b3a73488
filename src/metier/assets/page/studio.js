// From a file to a tuned run: its faults, what it will take, and the tunings there are.

import { post, send } from "./api.js";
import { el, find, speak } from "./dom.js";
import { all, isBase, isRun } from "./models.js";
import { faultTable, foreseen } from "./plan.js";
import { listTunings, rest, watchTuning } from "./tuning.js";

let built = false;
let sent = null; // the file as the server has it, and which one it was here
let looks = 0; // how often a file was looked at, or another one chosen

export async function show() {
  if (!built) build();
  built = true;
  try {
    await listTunings();
    find("tune").hidden = false;
    find("studio-fault").textContent = "";
    const bases = all().filter((each) => isBase(each) || isRun(each));
    const before = find("base").value;
    find("base").replaceChildren(
      ...bases.map((each) => el("option", { value: each.id }, isBase(each) ? each.id : `${each.id}, gone on from`)),
    );
    if (bases.some((each) => each.id === before)) find("base").value = before;
  } catch (error) {
    find("tune").hidden = error.status === 403; // a key that may talk, and tune nothing
    find("studio-fault").textContent = error.message;
  }
}

export const hide = rest;

function build() {
  const form = el(
    "form",
    { id: "tune", class: "card steps" },
    fields(),
    el("p", { class: "actions" }, el("button", { type: "submit", class: "main", id: "look" }, "Look at the file")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  form.addEventListener("change", forget);
  find("studio").replaceChildren(
    form,
    el("p", { class: "fault", id: "studio-fault", role: "alert" }),
    el("div", { id: "foreseen" }),
    el("div", { id: "tuning" }),
    el("section", { id: "jobs", "aria-label": "Tunings" }),
  );
}

function fields() {
  const file = el("input", {
    type: "file",
    id: "file",
    required: true,
    accept: ".csv,.tsv,.json,.jsonl,.ndjson,.parquet,.txt,.md",
  });
  return el(
    "div",
    { class: "fields" },
    field("Your data", file, "Questions and answers, or texts and labels: csv, tsv, json, jsonl or parquet."),
    field("Start from", el("select", { id: "base" }), "A base, or a run that is gone on from."),
    field(
      "Name",
      el("input", {
        id: "suffix",
        value: "tuned",
        required: true,
        maxlength: 64,
      }),
      "Of the domain, and of the run that comes of it.",
    ),
    field(
      "Epochs",
      el("input", { id: "epochs", type: "number", min: 1, max: 50, placeholder: "auto" }),
      "How often every example is read.",
    ),
  );
}

function field(name, control, meaning) {
  return el(
    "div",
    { class: "field-block" },
    el("label", { for: control.id }, name),
    control,
    el("p", { class: "soft small" }, meaning),
  );
}

/** What the form asks for, in the words of /v1/fine_tuning/jobs. */
function wanted(file, more = {}) {
  const epochs = find("epochs").value;
  return {
    model: find("base").value,
    training_file: file,
    suffix: find("suffix").value,
    hyperparameters: { n_epochs: epochs ? Number(epochs) : "auto" },
    ...more,
  };
}

/** What is foreseen of other data than are chosen now, or still is to be. */
function forget() {
  looks += 1;
  find("foreseen").replaceChildren();
  find("look").disabled = false;
}

async function look(more = {}) {
  const place = find("foreseen");
  const mine = (looks += 1);
  find("studio-fault").textContent = "";
  find("look").disabled = true;
  place.replaceChildren(
    el("p", { class: "busy", role: "status" }, "Reading the file, and timing this machine. That takes some seconds."),
  );
  try {
    const body = wanted(await upload(), more);
    const plan = await post("/v1/metier/plans", body);
    if (mine !== looks) return;
    place.replaceChildren(...told(plan, body));
    speak(plan.faults.length ? "The file has faults" : "No faults");
  } catch (error) {
    if (mine !== looks) return;
    place.replaceChildren();
    find("studio-fault").textContent = error.message;
  }
  find("look").disabled = false;
}

/** Once a file: what changes around it does not send it again. */
async function upload() {
  const file = find("file").files[0];
  if (sent?.file === file) return sent.id;
  const form = new FormData();
  form.append("purpose", "fine-tune");
  form.append("file", file);
  const { id } = await (await send("/v1/files", { method: "POST", body: form })).json();
  sent = { file, id };
  return id;
}

function told(plan, body) {
  if (plan.faults.length) return [faultTable(plan, body.skip_faulty ? null : () => look({ skip_faulty: true }))];
  const start = el(
    "button",
    { type: "button", class: "main", id: "start", onclick: () => begin(body, plan) },
    "Start tuning",
  );
  return [foreseen(plan, start)];
}

async function begin(body, plan) {
  find("start").disabled = true;
  try {
    const job = await post("/v1/fine_tuning/jobs", body);
    find("foreseen").replaceChildren();
    watchTuning(job, plan.plan.seconds);
    await listTunings();
  } catch (error) {
    find("studio-fault").textContent = error.message;
  }
}
