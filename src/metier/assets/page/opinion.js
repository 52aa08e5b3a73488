// Thumbs, and what should have been said instead: they become training rows.

import { post } from "./api.js";
import { el, icon, speak } from "./dom.js";

let numbered = 0;

export function opinion(answer) {
  const place = el("div", { class: "opinion" });
  const up = el(
    "button",
    { type: "button", class: "thumb", "aria-label": "Good answer", onclick: () => keep(place, answer, true) },
    icon("up"),
  );
  const down = el(
    "button",
    { type: "button", class: "thumb", "aria-label": "Bad answer", "aria-expanded": "false" },
    icon("down"),
  );
  const form = correction(answer, (text) => keep(place, answer, false, text));
  down.addEventListener("click", () => {
    form.hidden = !form.hidden;
    down.setAttribute("aria-expanded", String(!form.hidden));
    if (form.hidden) return;
    form.elements[0].focus();
    form.elements[0].select?.(); // what is typed takes the wrong answer's place; a list of labels has no text
  });
  place.append(up, down, form);
  return place;
}

function correction(answer, done) {
  const id = `correction-${++numbered}`;
  const box = answer.notes.shares
    ? labels(id, answer)
    : el("textarea", { id, rows: 4, dir: "auto" }, answer.text.trim());
  const named = el(
    "label",
    { for: id },
    "What should it have said?",
    el("span", { class: "soft" }, " Leave it as it is if you only disagree."),
  );
  const buttons = el("p", { class: "actions" }, el("button", { type: "submit", class: "main" }, "Keep"));
  const form = el("form", { class: "correction", hidden: true }, named, box, buttons);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    done(box.value.trim() === answer.text.trim() ? "" : box.value.trim());
  });
  return form;
}

function labels(id, answer) {
  const names = Object.keys(answer.notes.shares);
  return el(
    "select",
    { id },
    names.map((name) => el("option", { value: name, selected: name === answer.text.trim() }, name)),
  );
}

async function keep(place, answer, liked, corrected = "") {
  const { run, domain } = answer.notes;
  const body = {
    model: run,
    domain: domain ?? "",
    messages: answer.asked.messages,
    answer: answer.text,
    liked,
    correction: corrected,
  };
  try {
    await post("/v1/feedback", body);
  } catch (error) {
    place.querySelector(".fault")?.remove();
    place.append(el("p", { class: "fault", role: "alert" }, error.message));
    return;
  }
  const thanks = corrected
    ? "Kept, with the answer that you would have given; numbers and other personal data in it are blotted out."
    : liked
      ? "Kept: a good answer."
      : "Kept: a bad answer.";
  place.replaceChildren(el("p", { class: "remark" }, thanks));
  speak(thanks);
}
