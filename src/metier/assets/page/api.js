// The server's own API, with a key where it wants one.

import { find } from "./dom.js";

const KEPT = "metier.key";
let asking = null;

/** What the server said instead of an answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer to a request; asks for a key where one is wanted. Throws `Refused` with what the server says. */
export async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...bearer(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  if (response.status === 401) {
    await askForKey();
    return send(path, options);
  }
  if (!response.ok) throw new Refused(response.status, await why(response));
  return response;
}

export async function get(path) {
  return (await send(path)).json();
}

export async function post(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await send(path, { ...options, method: "POST", headers, body: JSON.stringify(body ?? {}) })).json();
}

/** A stream's events as they come. */
export async function* stream(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (held + value).split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      if (block === "data: [DONE]") return;
      const event = JSON.parse(block.slice("data: ".length));
      if (event.error) throw new Refused(500, event.error.message);
      yield event;
    }
  }
}

export const hasKey = () => sessionStorage.getItem(KEPT) !== null;

export function forgetKey() {
  sessionStorage.removeItem(KEPT);
  location.reload();
}

function bearer() {
  const key = sessionStorage.getItem(KEPT);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function why(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

/** Once for everybody who waits for it. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = find("key-dialog");
    find("key-fault").textContent = hasKey() ? "That key is not known here." : "";
    sessionStorage.removeItem(KEPT);
    const taken = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEPT, find("key").value.trim());
      find("key").value = "";
      find("forget").hidden = false;
      find("key-form").removeEventListener("submit", taken);
      dialog.close();
      asking = null;
      resolve();
    };
    find("key-form").addEventListener("submit", taken);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
}
