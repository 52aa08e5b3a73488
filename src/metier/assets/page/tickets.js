// Conversations that were handed over: read, taken, closed.

import { get, post } from "./api.js";
import { el, facts, find, moment, speak } from "./dom.js";

const MOODS = { upset: "upset", person: "asks for a person", unhelped: "stays unhelped" };
const SPOKEN = { user: "Customer", assistant: "Assistant", system: "System" };
let begun = false;
let opened = null;

export async function show() {
  if (!begun) find("state").addEventListener("change", () => list());
  begun = true;
  await list();
}

async function list() {
  const state = find("state").value;
  let tickets;
  try {
    tickets = (await get(`/v1/tickets${state ? `?state=${state}` : ""}`)).data;
  } catch (error) {
    find("tickets").replaceChildren(el("li", { class: "fault" }, error.message));
    find("ticket").replaceChildren();
    return;
  }
  find("tickets").replaceChildren(...tickets.map(entry));
  if (!tickets.length)
    find("tickets").append(el("li", { class: "soft" }, state ? `No ticket is ${state}.` : "There is no ticket yet."));
  const again = tickets.find((each) => each.id === opened);
  if (again) draw(again);
  else
    find("ticket").replaceChildren(
      ...(tickets.length ? [el("p", { class: "soft" }, "Choose a ticket to read it.")] : []),
    );
}

function entry(ticket) {
  const open = () => {
    draw(ticket);
    lead();
  };
  const asked = ticket.summary.split("\n")[0].replace(/^Asked( first)?: /, "");
  const told = [
    el("b", {}, `Ticket ${ticket.id}`),
    mood(ticket),
    el("span", { class: "soft small" }, when(ticket)),
    el("span", { class: "said", dir: "auto" }, asked),
  ];
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        id: `ticket-${ticket.id}`,
        "aria-current": ticket.id === opened ? "true" : null,
        onclick: open,
      },
      told,
    ),
  );
}

/** To the ticket, which on a phone stands below the list. */
function lead() {
  find("ticket").focus({ preventScroll: true });
  find("ticket").scrollIntoView({ block: "nearest" });
}

const mood = (ticket) =>
  el("span", { class: `chip ${ticket.mood === "upset" ? "bad" : "warm"}` }, MOODS[ticket.mood] ?? ticket.mood);
const when = (ticket) => [ticket.domain, moment(ticket.opened)].filter(Boolean).join(" · ");

function draw(ticket) {
  opened = ticket.id;
  for (const button of find("tickets").querySelectorAll("button")) {
    if (button.id === `ticket-${opened}`) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  const told = facts([
    ["State", ticket.state],
    ["Opened", moment(ticket.opened)],
    ["Domain", ticket.domain],
    ["Mood", MOODS[ticket.mood] ?? ticket.mood],
    ["Because", el("span", { class: "soft small" }, ticket.why)],
    ["Taken", ticket.taken ? `${moment(ticket.taken)} by ${ticket.taken_by}` : null],
    ["Closed", ticket.closed ? moment(ticket.closed) : null],
    ["Note", ticket.note],
  ]);
  find("ticket").replaceChildren(
    el("h2", {}, `Ticket ${ticket.id}`),
    told,
    el("h3", {}, "In short"),
    el("p", { class: "said", dir: "auto" }, ticket.summary),
    el("h3", {}, "What was said"),
    el("ol", { class: "transcript" }, ticket.transcript.map(spoken)),
    actions(ticket),
  );
}

const spoken = ({ role, content }) =>
  el("li", { class: role }, el("b", {}, SPOKEN[role] ?? role), el("p", { class: "said", dir: "auto" }, content));

function actions(ticket) {
  if (ticket.state === "closed") return "";
  const note = el("textarea", { id: "note", rows: 2, placeholder: "What was done (optional)" });
  const take =
    ticket.state === "open"
      ? el("button", { type: "button", class: "plain", id: "take", onclick: () => move(ticket, "take") }, "Take it")
      : null;
  const close = el("button", { type: "submit", class: "main", id: "close" }, "Close it");
  const form = el(
    "form",
    { class: "closing" },
    el("label", { for: "note" }, "Note"),
    note,
    el("p", { class: "actions" }, [close, take].filter(Boolean)),
    el("p", { class: "fault", id: "ticket-fault", role: "alert" }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    move(ticket, "close", { note: note.value });
  });
  return form;
}

async function move(ticket, how, body = {}) {
  try {
    const moved = await post(`/v1/tickets/${ticket.id}/${how}`, body);
    await list();
    draw(moved);
    lead();
    speak(`Ticket ${ticket.id} is ${moved.state}`);
  } catch (error) {
    find("ticket-fault").textContent = error.message;
  }
}
