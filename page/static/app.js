// Which view is shown, how old it is, and the way in.
import { el, lasting } from "./words.js";
import { close, enter, listen, now, resume, staleness, store, watch } from "./store.js";
import { fleetView } from "./fleet.js";

// Only the fleet is there from the start: what else there is comes when it is asked for.
const VIEWS = [
  [/^#\/decisions$/, "decisions", async () => (await import("./feed.js")).feedView],
  [/^#\/jobs$/, "jobs", async () => (await import("./jobs.js")).jobsView],
  [/^#\/job\/(\d+)$/, "jobs", async () => (await import("./job.js")).jobView],
  [/^#\/train$/, "train", async () => (await import("./train.js")).trainView],
  [/^#\/node\/(.+)$/, "fleet", async () => (await import("./node.js")).nodeView],
  [/^(#\/)?$/, "fleet", null],
];
const TABS = [["fleet", "#/", "Fleet"], ["jobs", "#/jobs", "Jobs"], ["train", "#/train", "Maintenance"], ["decisions", "#/decisions", "Decisions"]];
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

async function route(moved = true) {
  leave();
  leave = () => {};
  const { hash } = location, row = VIEWS.find(([pattern]) => pattern.test(hash)) ?? VIEWS.at(-1);
  const [pattern, tab, load] = row, given = pattern.exec(hash)?.[1];
  document.getElementById("nav").replaceChildren(...TABS.map(([name, href, text]) => el("a", { href, "aria-current": name === tab ? "page" : null }, text)));
  document.title = `${TABS.find(([name]) => name === tab)[2]} · ${store.facts.cluster}`;
  if (load) {
    const view = await load();
    if (location.hash !== hash) return; // somebody was quicker
    leave = view(main, given === undefined ? given : decodeURIComponent(given)) ?? (() => {});
  } else leave = fleetView(main, painted);
  if (moved) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
}

function tellAge() {
  const { facts } = store;
  if (!facts) return;
  const [live, stale, said, age] = ["live", "stale", "stale-words", "stale-age"].map((id) => document.getElementById(id));
  const [words, oldS] = staleness();
  const text = words ? "not live" : `live · Slurm ${lasting(Math.round(now() - facts.at))} ago`;
  live.classList.toggle("old", words !== "");
  live.textContent = words || now() - facts.at > 15 ? text : "live";
  live.title = text;
  if (stale.hidden !== (words === "")) stale.hidden = words === "";
  if (said.textContent !== words) said.textContent = words;
  age.textContent = oldS ? `${lasting(oldS)} ago` : "";
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
