// The fleet: how many nodes are how, the map, the same as a table, and the latest decisions beside it.
import { LOOKS, el, jobLink, many, moment, nodeLink, stateOf, swatch } from "./words.js";
import { store, watch } from "./store.js";
import { FleetMap } from "./map.js";
import { list } from "./feed.js";

const remembered = { table: false, wires: false, only: "", text: "" };
const ROWS_MAX = 500;

export function fleetView(root, painted) {
  const map = new FleetMap((name) => { location.hash = `#/node/${encodeURIComponent(name)}`; });
  map.wires = remembered.wires;
  map.only = remembered.only;
  const legend = el("div", { class: "bar legend", role: "group", "aria-label": "Show only nodes that are" });
  const side = el("div", {});
  const tables = el("div", {});
  const sub = el("span", { class: "sub" });
  const search = el("input", {
    type: "search", placeholder: "Node, job or reason", "aria-label": "Filter the table", value: remembered.text,
    oninput: (event) => { remembered.text = event.target.value; rows(); },
  });
  const toggle = (text, key, changed) => {
    const button = el("button", { class: "chip plain", "aria-pressed": String(remembered[key]) }, text);
    button.addEventListener("click", () => {
      remembered[key] = !remembered[key];
      button.setAttribute("aria-pressed", String(remembered[key]));
      changed();
    });
    return button;
  };
  const wires = toggle("Rails and links", "wires", () => map.rails(remembered.wires));
  const main = el("div", {});
  const place = () => {
    // Pods are panels of their own.
    main.className = remembered.table || !store.facts.pods.some((pod) => pod.name) ? "card" : "";
    main.replaceChildren(remembered.table ? tables : map.element);
  };
  const bar = el("div", { class: "bar right" }, wires, toggle("As a table", "table", () => { place(); draw({ full: true }); }));
  root.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Fleet"), sub, bar), legend,
    el("div", { class: "split" }, main, el("section", { class: "card", "aria-labelledby": "latest" },
      el("h2", { id: "latest" }, "Latest decisions"), side)));
  place();

  function rows() {
    const words = remembered.text.toLowerCase();
    const order = ["down", "ours", "others", "watched", "train", "busy", "free"];
    const found = Object.values(store.facts.nodes)
      .filter((node) => (!remembered.only || node.look === remembered.only)
        && (!words || `${node.name} ${node.why} ${node.slurm} ${node.jobs.join(" ")} ${LOOKS[node.look]}`.toLowerCase().includes(words)))
      .sort((a, b) => order.indexOf(a.look) - order.indexOf(b.look));
    const head = ["Node", "State", "Slurm", "Jobs", "Since", "Why"].map((title) => el("th", { scope: "col" }, title));
    const body = found.slice(0, ROWS_MAX).map((node) => el("tr", {}, el("th", { scope: "row" }, nodeLink(node.name)),
      el("td", {}, stateOf(node.look)), el("td", {}, node.slurm.toLowerCase()),
      el("td", {}, node.jobs.slice(0, 4).flatMap((id, at) => (at ? [", ", jobLink(id)] : [jobLink(id)]))),
      el("td", {}, node.since ? moment(node.since) : ""), el("td", { class: "wide" }, node.why)));
    const left = found.length - ROWS_MAX;
    tables.querySelector(".scroll")?.remove();
    tables.querySelector(".note")?.remove();
    if (!search.isConnected) tables.replaceChildren(el("div", { class: "bar legend" }, search));
    tables.append(el("div", { class: "scroll" }, el("table", {}, el("caption", { class: "unseen" }, "Nodes, those in trouble first"),
      el("thead", {}, el("tr", {}, head)), el("tbody", {}, body))),
    el("p", { class: "note" }, left > 0 ? `and ${many(left, "node")} more: filter to see them` : ""));
  }

  function chips() {
    const focused = document.activeElement?.dataset?.look;
    legend.replaceChildren(...Object.entries(LOOKS).map(([look, words]) => {
      const count = store.facts.counts[look];
      return el("button", {
        class: count ? "chip" : "chip none", "aria-pressed": String(remembered.only === look), "data-look": look,
        onclick: () => {
          remembered.only = remembered.only === look ? "" : look;
          map.hide(remembered.only);
          chips();
          if (remembered.table) rows();
        },
      }, swatch(look), el("b", {}, count.toLocaleString("en")), words);
    }));
    if (focused) legend.querySelector(`[data-look="${focused}"]`)?.focus();
  }

  function draw(change) {
    const { facts } = store;
    if (change.full || change.counts) {
      chips();
      const leaves = facts.pods.flatMap((pod) => pod.leaves).filter((leaf) => leaf.name).length;
      const pods = facts.pods.filter((pod) => pod.name).length;
      sub.textContent = [many(Object.keys(facts.nodes).length, "node"), leaves && many(leaves, "leaf", "leaves"),
        pods && many(pods, "pod"), many(facts.jobs.filter((job) => job.state === "RUNNING").length, "running job")].filter(Boolean).join(" · ");
    }
    if (change.full || change.wiring !== undefined) wires.hidden = !facts.wiring;
    if (remembered.table) { if (change.full || Object.keys(change.nodes ?? {}).length) rows(); }
    else if (change.full || Object.keys(change.nodes ?? {}).length) map.show(facts);
    if (change.full || change.feed?.length || change.trips) {
      const trips = facts.trips.map((why) => el("p", { class: "note bad" }, `Drains are stopped: ${why}`));
      side.replaceChildren(...trips, list(facts.feed, 9), el("p", { class: "note" }, el("a", { href: "#/decisions" }, "All decisions")));
    }
    painted(change);
  }
  draw({ full: true });
  return watch(draw);
}
