// A loss curve: every step's loss faint, their running mean strong.

import { el, svg } from "./dom.js";

const WIDTH = 1000;
const HEIGHT = 240;

/** `points` are [step, loss]; the axis goes to the last step that there will be. */
export function drawCurve(points, steps) {
  const losses = points.map(([, loss]) => loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const room = (high - low || 1) * 0.05;
  const x = (step) => (WIDTH * (step - 1)) / Math.max(1, steps - 1);
  const y = (loss) => HEIGHT * (1 - (loss - low + room) / (high - low + 2 * room));
  const line = (each) => each.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  const mean = smoothed(points, steps);
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": said(points, steps) },
    [0.25, 0.5, 0.75].map((part) =>
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }),
    ),
    svg("polyline", { class: "raw", points: line(points) }),
    svg("polyline", { class: "mean", points: line(mean) }),
  );
  return el(
    "figure",
    { class: "loss" },
    el(
      "div",
      { class: "plot" },
      el("span", { class: "top" }, high.toFixed(2)),
      el("span", { class: "bottom" }, low.toFixed(2)),
      picture,
    ),
    el(
      "figcaption",
      {},
      el("span", {}, "Loss, nats a token"),
      el("b", {}, mean.at(-1)[1].toFixed(2)),
      el("span", {}, `· step ${points.at(-1)[0]} of ${steps}`),
    ),
  );
}

/** The running mean over about a twentieth of all steps, unbiased at its beginning. */
function smoothed(points, steps) {
  const keep = 1 - 1 / Math.min(20, Math.max(2, steps / 20));
  let sum = 0;
  let weight = 0;
  return points.map(([step, loss]) => {
    sum = keep * sum + (1 - keep) * loss;
    weight = keep * weight + (1 - keep);
    return [step, sum / weight];
  });
}

function said(points, steps) {
  const [[, first]] = points;
  const [step, last] = points.at(-1);
  return `Loss after step ${step} of ${steps}: ${last.toFixed(2)}, at the beginning ${first.toFixed(2)}`;
}
