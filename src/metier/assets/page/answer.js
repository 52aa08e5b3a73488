// One answer: its text as it comes, what was done to it, and what it rests on.

import { basis } from "./basis.js";
import { el, share } from "./dom.js";
import { isBase, model } from "./models.js";
import { opinion } from "./opinion.js";

const KINDS = { emergency: "Emergency", refusal: "Not passed on", language: "Language", declined: "Declined" };

export class Answer {
  /** `asked` holds model and messages, and whether the untuned base is meant. */
  constructor(asked) {
    this.asked = asked;
    this.text = "";
    this.notes = {};
    this.words = el("div", { class: "words", dir: "auto" });
    this.below = el("div", { class: "below" });
    this.name = el("p", { class: "who" }, asked.untuned ? "Untuned base" : "");
    this.node = el(
      "article",
      { class: `answer ${asked.untuned ? "untuned" : "tuned"} waiting` },
      this.name,
      this.words,
      this.below,
    );
  }

  get body() {
    return { ...this.asked, stream: true };
  }

  /** Whether a model answers, and not what stands in front of it. */
  get isModels() {
    return Boolean(this.notes.run);
  }

  get spoken() {
    return `${this.asked.untuned ? "The untuned base" : "Answer"}: ${this.node.innerText}`;
  }

  take(event) {
    if (event.metier) {
      this.notes = { ...this.notes, ...event.metier };
      this.head();
    }
    const delta = event.choices[0]?.delta.content;
    if (event.choices[0]?.finish_reason === "length") this.long = true;
    if (!delta) return;
    this.text += delta;
    this.words.textContent = this.text.trimStart();
  }

  /** Where `auto` was not sure, the base itself answers, and nothing tuned. */
  head() {
    const { run, route } = this.notes;
    const who = model(run);
    if (this.asked.untuned || !who || !isBase(who)) return;
    this.node.classList.replace("tuned", "untuned");
    this.name.textContent = route && !route.domain ? "Untuned base (auto was not sure)" : "Untuned base";
  }

  /** All has come, or somebody stopped it. */
  end(why = "") {
    this.node.classList.remove("waiting");
    this.takeNotice();
    const { safety, handover, shares } = this.notes;
    if (safety) this.mark(safety.kind === "emergency" ? "alarm" : "note", KINDS[safety.kind] ?? safety.kind);
    if (handover) this.mark("note", `Handed over · ticket ${handover.ticket}`);
    if (shares) this.below.append(bars(shares));
    for (const remark of this.remarks(why)) this.below.append(el("p", { class: "remark" }, remark));
    this.below.append(basis(this));
    if (this.text && !safety && !handover && this.isModels) this.below.append(opinion(this));
  }

  /** The standing notice is no part of what the model said. */
  takeNotice() {
    const { notice } = this.notes;
    if (!notice) return;
    if (this.text.endsWith(notice)) this.text = this.text.slice(0, -notice.length).trimEnd();
    this.words.textContent = this.text.trimStart();
    this.below.append(el("p", { class: "notice" }, notice));
  }

  remarks(why) {
    const { withheld } = this.notes;
    const doses =
      withheld === 1
        ? "A sentence that gave a dose was withheld."
        : `${withheld} sentences that gave a dose were withheld.`;
    return [
      withheld ? doses : "",
      why === "stopped" ? "Stopped." : "",
      this.long ? "Cut off: it had come to the most that is said at once." : "",
    ].filter(Boolean);
  }

  mark(kind, name) {
    this.node.classList.add(kind);
    this.node.setAttribute("role", kind === "alarm" ? "alert" : "note");
    this.name.replaceChildren(el("strong", {}, name));
  }

  fail(message) {
    this.node.classList.remove("waiting");
    this.node.classList.add("failed");
    this.node.setAttribute("role", "alert");
    this.below.append(el("p", { class: "fault" }, message));
  }

  /** The base has nothing to say where no model was asked. */
  leave() {
    this.node.classList.remove("waiting");
    this.below.append(el("p", { class: "remark" }, "Not asked: this was answered before any model."));
  }
}

/** How likely each label was, the likeliest first. */
function bars(shares) {
  const ranked = Object.entries(shares).sort(([, one], [, other]) => other - one);
  const rows = ranked.map(([label, part]) =>
    el(
      "li",
      { vars: { "--share": part } },
      el("span", { dir: "auto" }, label),
      el("span", { class: "track", "aria-hidden": "true" }),
      el("b", {}, share(part)),
    ),
  );
  return el("ul", { class: "shares", "aria-label": "Each label's share" }, rows);
}
