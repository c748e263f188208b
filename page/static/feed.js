// What was decided and seen, the newest first, each with its why.
import { el, fold, jobLink, moment, nodeLink } from "./words.js";
import { store, watch } from "./store.js";

const subject = ({ kind, name }) => (kind === "node" ? nodeLink(name) : kind === "job" ? ["job ", jobLink(name)]
  : kind === "train" ? el("a", { href: "#/train" }, `train ${name}`) : `${kind} ${name}`);

// The same thing said of many nodes at once is one line.
export function together(feed) {
  const found = [];
  for (const entry of feed) {
    const last = found.at(-1);
    if (last && entry.kind === "node" && last.kind === "node" && last.what === entry.what && Math.abs(last.at - entry.at) < 2
      && last.why.replace(/ #\w+$/, "") === entry.why.replace(/ #\w+$/, "")) last.names.push(entry.name);
    else found.push({ ...entry, names: [entry.name] });
  }
  return found;
}

export function item(entry, bare = false) {
  const folded = entry.names?.length > 1 ? fold(entry.names) : "";
  const who = bare ? null : folded ? el("b", { title: folded }, folded.length < 26 ? folded : `${entry.names.length} nodes`)
    : el("b", {}, subject(entry));
  return el("li", { class: entry.tone, "data-number": entry.number },
    el("div", { class: "line" }, who, el("span", {}, said(entry.what)),
      el("time", { datetime: new Date(entry.at * 1000).toISOString() }, moment(entry.at))),
    entry.why ? el("p", { class: "why" }, entry.why.replace(/ #[0-9a-f]{10}$/, "")) : null);
}

const said = (what) => what.replace(" -> ", " → ").replace(/\b[A-Z]{2,}\b/g, (word) => word.toLowerCase());

export function list(feed, most, long = false) {
  if (!feed.length) return el("p", { class: "empty" }, "Nothing was decided yet, and nothing has happened.");
  return el("ol", { class: long ? "feed long" : "feed" }, together(feed).slice(0, most).map((entry) => item(entry)));
}

export function feedView(root) {
  const kinds = ["all", "node", "job", "train"];
  let chosen = "all";
  const body = el("div", { class: "card" });
  const chips = kinds.map((kind) => el("button", {
    class: "chip plain", "aria-pressed": String(kind === chosen), onclick: (event) => {
      chosen = kind;
      chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip === event.currentTarget)));
      draw();
    },
  }, kind === "all" ? "Everything" : `${kind[0].toUpperCase()}${kind.slice(1)}s`));
  const draw = () => {
    const feed = store.facts.feed.filter((entry) => chosen === "all" || entry.kind === chosen);
    body.replaceChildren(list(feed, 200, true));
  };
  root.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Decisions"), el("span", { class: "sub" }, "what was decided or seen, and why"),
      el("div", { class: "bar right", role: "group", "aria-label": "Which" }, chips)), body);
  draw();
  return watch((change) => { if (change.full || change.feed?.length) draw(); });
}
