// One page, four views; which one is shown stands in the address.

import { forgetKey, hasKey } from "./api.js";
import * as chat from "./chat.js";
import { find } from "./dom.js";
import * as load from "./load.js";
import * as studio from "./studio.js";
import * as tickets from "./tickets.js";

const VIEWS = { chat, tickets, load, studio };
let shown = null;

function show() {
  const name = location.hash.slice(1);
  if (shown && !(name in VIEWS)) return; // an anchor within the page
  const next = name in VIEWS ? name : "chat";
  if (next === shown) return;
  if (shown) VIEWS[shown].hide?.();
  shown = next;
  for (const each of Object.keys(VIEWS)) find(`view-${each}`).hidden = each !== next;
  for (const link of document.querySelectorAll(".head nav a")) {
    if (link.hash === `#${next}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = next === "chat" ? "metier" : `${find(`${next}-title`).textContent} · metier`;
  window.scrollTo(0, 0);
  VIEWS[next].show();
}

find("forget").hidden = !hasKey();
find("forget").addEventListener("click", forgetKey);
window.addEventListener("hashchange", show);
show();
