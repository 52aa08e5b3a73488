// Tunings: those there are, and one as it goes.

import { get, post } from "./api.js";
import { talkTo } from "./chat.js";
import { drawCurve } from "./curve.js";
import { duration, el, find, moment, speak } from "./dom.js";
import { model, readModels } from "./models.js";

const EVERY = 1000; // milliseconds
const STATES = { queued: "warm", running: "warm", succeeded: "good", failed: "bad", cancelled: "even" };
const PHASE = /^(.+) (\d+)\/(\d+)$/;
const FORECAST = { train: "training", validation: "validation" }; // what a plan calls these phases
let watched = null; // { id, status, events, forecast }

/** Look at nothing any more. */
export function rest() {
  watched = null;
}

/** All of them; one that runs is looked at, unless another one is already. */
export async function listTunings() {
  await readModels(); // which of them are served
  const { data } = await get("/v1/fine_tuning/jobs?limit=100");
  const list = el("ul", { class: "jobs" }, data.map(entry));
  find("jobs").replaceChildren(...(data.length ? [el("h2", {}, "Tunings"), list] : []));
  const running = data.find((each) => !ended(each));
  if (running && !watched) watchTuning(running);
}

function entry(job) {
  const told = [
    el("b", {}, title(job)),
    chip(job.status),
    el("span", { class: "soft small" }, moment(job.created_at * 1000)),
  ];
  const look = () => {
    watchTuning(job);
    find("tuning").scrollIntoView({ block: "nearest" });
  };
  return el("li", {}, el("button", { type: "button", onclick: look }, told));
}

const title = (job) => job.fine_tuned_model ?? `${job.user_provided_suffix || "tuned"}, on ${job.model}`;
const chip = (status) => el("span", { class: `chip ${STATES[status]}` }, status);
const ended = ({ status }) => !["queued", "running"].includes(status);
const kept = (id) => `metier.forecast.${id}`;

/** Follow a tuning until it ends, or another one is looked at; `seconds` is what each phase was forecast to take. */
export async function watchTuning(job, seconds = null) {
  if (seconds) sessionStorage.setItem(kept(job.id), JSON.stringify(seconds));
  const mine = (watched = {
    id: job.id,
    status: job.status,
    events: [],
    forecast: JSON.parse(sessionStorage.getItem(kept(job.id)) ?? "{}"),
  });
  while (watched === mine) {
    try {
      await readEvents(mine);
      job = await get(`/v1/fine_tuning/jobs/${mine.id}`);
    } catch (error) {
      find("tuning").replaceChildren(el("p", { class: "fault", role: "alert" }, error.message));
      return;
    }
    if (watched !== mine) return;
    if (job.status !== mine.status) await changed(job, mine);
    if (watched !== mine) return;
    draw(job, mine);
    if (ended(job) && mine.status === job.status) return;
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

/** Those that are not known yet, the oldest first. */
async function readEvents(mine) {
  const last = mine.events.at(-1)?.id;
  let fresh = [];
  let more = true;
  while (more) {
    const after = fresh.length ? `&after=${fresh.at(-1).id}` : "";
    const page = await get(`/v1/fine_tuning/jobs/${mine.id}/events?limit=100${after}`);
    const known = page.data.findIndex((each) => each.id === last);
    fresh = [...fresh, ...(known < 0 ? page.data : page.data.slice(0, known))];
    more = known < 0 && page.has_more;
  }
  mine.events = [...mine.events, ...fresh.reverse()];
}

/** Whoever saw it run is told of its end, and the list says so too; where that cannot be read, a moment later. */
async function changed(job, mine) {
  try {
    await listTunings();
  } catch {
    return;
  }
  mine.status = job.status;
  if (ended(job)) speak(`The tuning has ${job.status}`);
}

function draw(job, mine) {
  const points = mine.events.filter((each) => each.data.loss !== undefined);
  const parts = [
    el("h2", {}, title(job)),
    el("p", { class: "progress" }, chip(job.status), el("span", {}, ended(job) ? ending(job) : progress(mine))),
    points.length > 1
      ? drawCurve(
          points.map(({ data }) => [data.step, data.loss]),
          points.at(-1).data.total_steps,
        )
      : null,
    actions(job),
    el("p", { class: "fault", id: "tuning-fault", role: "alert" }),
    log(mine.events),
  ];
  const open = find("tuning").querySelector("details")?.open;
  const focused = document.activeElement?.id;
  find("tuning").replaceChildren(el("section", { class: "card", "data-status": job.status }, parts));
  if (open) find("tuning").querySelector("details").open = true;
  if (focused) find(focused)?.focus();
}

function ending(job) {
  if (job.error) return job.error.message;
  const took = duration(job.finished_at - job.created_at);
  if (job.status !== "succeeded") return `Ended after ${took}.`;
  return `Done in ${took}, and ${model(job.fine_tuned_model) ? "served from now on" : "served no more; its run is kept"}.`;
}

/** The phase that it is in, how far, and how long it will take yet. */
function progress({ events, forecast }) {
  const now = events.findLast((each) => PHASE.test(each.message));
  if (!now) return events.at(-1)?.message ?? "waits for its turn";
  const [, phase, done, total] = now.message.match(PHASE);
  const left = remaining(events, phase, Number(done), Number(total), forecast);
  return `${phase} ${done} of ${total}${left === null ? "" : `, about ${duration(left)} left`}`;
}

/** This phase at its own pace, and those behind it as they were forecast; null where neither is known. */
function remaining(events, phase, done, total, forecast) {
  const own = events.filter((each) => each.message.startsWith(`${phase} `));
  const passed = own.at(-1).created_at - own[0].created_at;
  const first = Number(own[0].message.match(PHASE)?.[2] ?? 0);
  const pace = done > first && passed > 0 ? passed / (done - first) : null;
  const names = Object.keys(forecast);
  const behind = names
    .slice(names.indexOf(FORECAST[phase] ?? phase) + 1)
    .reduce((sum, name) => sum + forecast[name], 0);
  if (pace === null) return names.length ? behind + (forecast[FORECAST[phase] ?? phase] ?? 0) : null;
  return pace * (total - done) + behind;
}

function actions(job) {
  const buttons = [];
  if (!ended(job))
    buttons.push(el("button", { type: "button", class: "plain", id: "halt", onclick: () => halt(job) }, "Stop"));
  if (job.status === "succeeded" && model(job.fine_tuned_model)) {
    buttons.push(
      el("button", { type: "button", class: "main", id: "talk-to", onclick: () => talk(job) }, "Talk with it"),
    );
    buttons.push(
      el("button", { type: "button", class: "plain", id: "report", onclick: () => report(job) }, "Open its report"),
      el("button", { type: "button", class: "plain", id: "unload", onclick: () => unload(job) }, "Serve it no more"),
    );
  }
  return buttons.length ? el("p", { class: "actions" }, buttons) : null;
}

async function halt(job) {
  try {
    await post(`/v1/fine_tuning/jobs/${job.id}/cancel`);
  } catch (error) {
    find("tuning-fault").textContent = error.message;
  }
}

/** Of a try that is not to answer customers; its run stays where it is. */
async function unload(job) {
  try {
    await post("/v1/unload_lora_adapter", { name: job.fine_tuned_model });
    await listTunings();
    watchTuning(job);
    speak(`${job.fine_tuned_model} is served no more`);
  } catch (error) {
    find("tuning-fault").textContent = error.message;
  }
}

async function talk(job) {
  await talkTo(job.fine_tuned_model);
  location.hash = "#chat";
}

/** A report opens by a link that is good for a minute; the tab is opened at once, or the browser would block it. */
async function report(job) {
  const tab = window.open("", "_blank");
  try {
    const { url } = await post("/v1/metier/reports", { model: job.fine_tuned_model });
    if (tab) tab.location = url;
    else location.assign(url);
  } catch (error) {
    tab?.close();
    find("tuning-fault").textContent = error.message;
  }
}

function log(events) {
  const told = events.filter((each) => !PHASE.test(each.message));
  const lines = told.map((each) =>
    el(
      "li",
      {},
      el("time", { class: "soft" }, new Date(each.created_at * 1000).toLocaleTimeString()),
      ` ${each.message}`,
    ),
  );
  return el("details", {}, el("summary", {}, "What it said"), el("ol", { class: "log" }, lines));
}
