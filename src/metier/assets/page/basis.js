// What an answer rests on: its domain, who gave it, how that did when it was measured, what stood in front.

import { el, facts, plural, share } from "./dom.js";
import { model, scoreOf } from "./models.js";

const WORDS = {
  better: "better than its base",
  worse: "worse than its base",
  "no difference shown": "no difference shown to its base",
};
const KINDS = { better: "good", worse: "bad", "no difference shown": "even" };

/** Whether a score is better than the base's, in the paired test's words. */
export function verdict(score) {
  return score.verdict ? el("span", { class: `chip ${KINDS[score.verdict]}` }, WORDS[score.verdict]) : null;
}

/** Whether it is better than the classical baseline's: a run may beat its base and still be worse than that. */
export function besideBaseline({ baseline }) {
  return baseline ? el("span", { class: `chip ${KINDS[baseline.verdict]}` }, baseline.said) : null;
}

/** One line that is always seen, with all of it behind. */
export function basis({ notes, asked }) {
  const rows = [...origin(notes, asked), ...around(notes)];
  const line = [notes.route ? chose(notes.route) : notes.domain, who(notes, asked), standing(notes, asked)];
  const summary = el("summary", {}, "What this rests on", el("span", {}, line.filter(Boolean).join(" · ")));
  return el("details", { class: "basis" }, summary, facts(rows), passages(notes.passages));
}

/** How the run did in this domain, in a few words. */
function standing({ run, domain }, { untuned }) {
  const score = untuned ? null : scoreOf(run, domain);
  return score ? [score.said, WORDS[score.verdict], score.baseline?.said].filter(Boolean).join(", ") : null;
}

function origin(notes, asked) {
  const score = asked.untuned ? null : scoreOf(notes.run, notes.domain);
  return [
    ["Domain", notes.domain],
    ["Routing", notes.route ? chose(notes.route) : null],
    [asked.untuned ? "Untuned base" : "Answered by", notes.run],
    [
      "Measured",
      score
        ? el(
            "span",
            {},
            `${score.said}, ${plural(score.n, "held-out question")} `,
            verdict(score),
            score.difference ? ` ${score.difference} ` : null,
            besideBaseline(score),
          )
        : null,
    ],
    ["Engine", elsewhere(notes.run)],
    ["Asked with", shown(notes)],
  ];
}

function around({ safety, handover, withheld }) {
  return [
    [
      "Safety",
      safety
        ? `${safety.kind}, because of “${safety.because || safety.rule}”`
        : null,
    ],
    ["Withheld", withheld ? plural(withheld, "sentence") : null],
    ["Handed over", handover ? `ticket ${handover.ticket}` : null],
  ];
}

function who({ run, safety, handover }, { untuned }) {
  if (safety) return "a fixed text, no model";
  if (handover) return "no model: a person takes over";
  if (!run) return "no model";
  return untuned ? `${run}, untuned` : run;
}

function chose({ domain, share: part, stays }) {
  if (stays) return `auto stayed with ${domain}, of which the talk was`;
  return domain ? `auto chose ${domain}, ${share(part)} sure` : `auto was not sure enough of a domain (${share(part)})`;
}

/** What is said of an engine that is not the one that measured. */
function elsewhere(run) {
  const { engine, as_measured: same = true } = model(run) ?? {};
  return same ? null : `${engine}: near what was measured, not the same`;
}

function shown({ examples, passages: found }) {
  const parts = [examples ? plural(examples, "example") : null, found ? plural(found.length, "passage") : null];
  return parts.filter(Boolean).join(" and ") || null;
}

function passages(found = []) {
  return found.map(({ place, text }) =>
    el("figure", { class: "passage" }, el("blockquote", { dir: "auto" }, text), el("figcaption", {}, place)),
  );
}
