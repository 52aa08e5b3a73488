// Who can be asked: runs by domain, bases, and auto, as /v1/models tells them.

import { get } from "./api.js";
import { el } from "./dom.js";

export const AUTO = "auto";
let known = [];

export async function readModels() {
  known = (await get("/v1/models")).data;
  return known;
}

export const all = () => known;
export const model = (id) => known.find((each) => each.id === id);
export const isBase = (each) => each.parent === null && each.id !== AUTO;
export const isRun = (each) => each.parent !== null && each.id === each.root;

/** How a run did in a domain when it was measured; undefined where it was not. */
export function scoreOf(run, domain) {
  return model(run)?.scores?.find((each) => each.domain === domain);
}

/** Whether the untuned base can be asked beside a model. */
export function hasUntuned(id) {
  return id === AUTO ? known.some((each) => each.untuned) : Boolean(model(id)?.untuned);
}

/** Choices for a picker: auto, domains by their own names, runs by domain, bases. */
export function choices() {
  const groups = [
    ["Chosen by the question", known.filter((each) => each.id === AUTO).map((each) => option(each.id, "auto"))],
    ["Domains", known.filter(isDomain).map((each) => option(each.id, each.id))],
    ...known.filter(isRun).map((run) => [run.id, ofRun(run)]),
    ["Untuned", known.filter(isBase).map((each) => option(each.id, each.id))],
  ];
  return groups.filter(([, options]) => options.length).map(([label, options]) => el("optgroup", { label }, options));
}

function ofRun(run) {
  const [, ...more] = run.domains;
  if (!more.length) return [option(run.id, run.domains[0] ?? run.id)];
  const named = run.domains.filter((domain) => model(domain)?.root !== run.id).map((domain) => option(`${run.id}/${domain}`, domain));
  return [...named, option(run.id, "as it is typed, in no domain")];
}

const isDomain = (each) => each.parent !== null && each.id !== each.root && !each.id.startsWith(`${each.root}/`);

function option(value, text) {
  return el("option", { value }, text);
}
