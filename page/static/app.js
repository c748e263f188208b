// Which view is shown, how old it is, and the way in.
import { el, lasting } from "./words.js";
import { close, enter, listen, now, resume, staleness, store, watch } from "./store.js";
import { fleetView } from "./fleet.js";
import { nodeView } from "./node.js";
import { feedView } from "./feed.js";

const VIEWS = [
  [/^#\/decisions$/, (root) => feedView(root), "decisions"],
  [/^#\/node\/(.+)$/, (root, name) => nodeView(root, decodeURIComponent(name)), "fleet"],
  [/^(#\/)?$/, (root) => fleetView(root, painted), "fleet"],
];
const TABS = [["fleet", "#/", "Fleet"], ["decisions", "#/decisions", "Decisions"]];
const main = document.getElementById("main");
let leave = () => {};
let first = true;

// For whoever measures: milliseconds until the first picture, and from a change's arrival to its picture.
function painted(change) {
  const began = change.full ? 0 : store.received;
  requestAnimationFrame(() => setTimeout(() => {
    const key = first ? "painted" : change.nodes && Object.keys(change.nodes).length ? "changed" : "";
    if (key) document.documentElement.dataset[key] = (performance.now() - (first ? 0 : began)).toFixed(1);
    first = false;
  }));
}

function route(moved = true) {
  leave();
  const hash = location.hash;
  const [, view, tab] = VIEWS.find(([pattern]) => pattern.test(hash)) ?? VIEWS.at(-1);
  const found = VIEWS.find(([pattern]) => pattern.test(hash))?.[0].exec(hash) ?? [];
  document.getElementById("nav").replaceChildren(...TABS.map(([name, href, text]) => el("a", { href, "aria-current": name === tab ? "page" : null }, text)));
  leave = view(main, found[1]) ?? (() => {});
  if (moved) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
}

function tellAge() {
  const { facts } = store;
  if (!facts) return;
  const live = document.getElementById("live"), stale = document.getElementById("stale"), words = staleness();
  const text = words ? "not live" : `live · Slurm ${lasting(Math.round(now() - facts.at))} ago`;
  live.classList.toggle("old", words !== "");
  live.setAttribute("aria-live", "off");
  live.textContent = words || now() - facts.at > 15 ? text : "live";
  live.title = text;
  if (stale.hidden !== (words === "")) stale.hidden = words === "";
  if (stale.textContent !== words) stale.textContent = words;
}

let known = false;
function begin() {
  listen();
  if (known) return;
  known = true;
  let begun = false;
  watch((change) => {
    if (!store.facts) return;
    document.getElementById("cluster").textContent = store.facts.cluster;
    tellAge();
    if (!begun) { begun = true; route(false); }
  });
  setInterval(tellAge, 1000);
  addEventListener("hashchange", () => { if (store.facts) route(); });
}

function gate() {
  const token = el("input", { type: "password", id: "token", autocomplete: "off", required: true });
  const said = el("p", { class: "note bad", role: "alert" });
  const form = el("form", {}, el("label", { for: "token" }, "Token"), token, said, el("button", { class: "act primary" }, "Enter"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await enter(token.value.trim())) begin();
    else said.textContent = "That is not the token.";
  });
  main.replaceChildren(el("section", { class: "card gate" }, el("h1", {}, "This page needs its token"),
    el("p", { class: "soft" }, "trainmaster controller page prints it, or keeps it in the file named with --token-file."), form));
  token.focus();
}

const given = /^#token=(.+)$/.exec(location.hash)?.[1];
if (given) history.replaceState(null, "", "#/"); // it is not to stay in the address, nor in the history
if (given) {
  if (await enter(given)) begin();
  else gate();
} else {
  // Facts are asked for at once; who may not have them gets none.
  begin();
  if (!(await resume())) { close(); gate(); }
}
