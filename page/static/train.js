// Maintenance trains: how much capacity is left of what was promised, where each train is, and what comes next.
import { el, facts, lasting, many, moment, nodesOf } from "./words.js";
import { now, store, watch } from "./store.js";
import { capacityChart } from "./chart.js";
import { confirm } from "./asking.js";

const STAGES = ["BOOKED", "DRAINING", "WORKING", "INSPECTING", "CHECKING", "RETURNING", "FINISHING", "DONE"];
const WORDS = { BOOKED: "booked", DRAINING: "draining", WORKING: "worked on", INSPECTING: "versions read", CHECKING: "verified", RETURNING: "returning", FINISHING: "finishing", DONE: "back" };

export function trainView(root) {
  const lines = el("div", { class: "below" }), trains = el("div", {});
  const sub = el("span", { class: "sub" });
  const drawLines = () => lines.replaceChildren(...store.facts.lines.map(capacity));
  function drawTrains() {
    const { facts: known } = store, moving = known.trains.filter((train) => train.where !== "through").length;
    sub.textContent = known.trains.length ? `${moving} under way · ${known.trains.length - moving} through` : "";
    const focused = document.activeElement?.dataset?.ask;
    trains.replaceChildren(...(known.trains.length ? known.trains.map(card)
      : [el("section", { class: "card" }, el("p", { class: "empty" }, "No train is under way. ", el("code", {}, "trainmaster controller train start"), " has the controller start one."))]));
    if (focused) trains.querySelector(`[data-ask="${focused}"]`)?.focus();
  }
  root.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Maintenance"), sub), trains, lines);
  drawTrains();
  drawLines();
  const again = setInterval(drawLines, 5000); // time goes on, though nothing changes
  const stop = watch((change) => {
    if (change.full || change.trains || change.next) drawTrains();
    if (change.full || change.lines) drawLines();
  });
  return () => { clearInterval(again); stop(); };
}

function capacity(line) {
  const { promised, buffer } = line, lowest = Math.min(...line.points.map(([, count]) => count));
  const spare = promised === null ? null : line.now - promised;
  const kept = promised === null ? null : lowest >= promised;
  return el("section", { class: "card", "data-group": line.group }, el("h2", {}, `Nodes in service: ${line.group}`),
    el("div", { class: "figures" }, figure(line.now, `of ${many(line.size, "node")}, now`), promised === null ? null : figure(promised, "guaranteed"),
      spare === null ? null : figure(spare, spare >= 0 ? `above the guarantee, of which ${buffer} kept for failures` : "above the guarantee", spare < 0 ? "bad" : ""),
      figure(lowest, `the lowest in ${lasting(now() - line.points[0][0])}`, kept === false ? "bad" : "")),
    capacityChart(line, now()));
}

const figure = (value, words, tone = "") => el("div", {}, el("div", { class: `big ${tone}` }, String(value)), el("p", {}, words));

function card(train) {
  const share = (count) => `width:${((100 * count) / Math.max(1, train.total)).toFixed(2)}%`;
  const verb = train.where === "paused" ? "resume" : "pause";
  const button = store.actions && train.where !== "through"
    ? el("button", { class: "act right", "data-ask": `${verb} ${train.name}`, onclick: () => confirm(verb, train.name) }, verb === "pause" ? "Pause this train" : "Let it go on") : null;
  const bar = el("div", { class: "progress", role: "img", "aria-label": `${train.visited} hosts visited, ${train.in_hand} in hand, ${train.left} to come` });
  const piece = (kind, count) => { const one = el("span", { class: kind }); one.style.cssText = share(count); return count ? one : null; };
  bar.append(...[piece("done", train.visited), piece("hand", train.in_hand)].filter(Boolean));
  const keys = el("p", { class: "keys" }, el("span", {}, el("i", { class: "done" }), `${many(train.visited, "host")} visited`),
    el("span", {}, el("i", { class: "hand" }), `${train.in_hand} in hand, at most ${train.domain} at once`), el("span", {}, el("i", { class: "left" }), `${train.left} ${train.where === "through" ? "not come to" : "to come"}`));
  const at = new Map();
  for (const car of train.at_work) at.set(car.stage, [...(at.get(car.stage) ?? []), ...car.hosts]);
  const track = train.where === "through" ? null : el("ol", { class: "track", "aria-label": "Where its hosts stand" }, STAGES.map((stage) => {
    const hosts = at.get(stage) ?? [], back = stage === "DONE" ? train.visited : 0;
    return el("li", { class: hosts.length ? "here" : back ? "past" : "" }, WORDS[stage], el("span", { class: "hosts" }, hosts.length ? nodesOf(hosts, 3) : back ? String(back) : ""));
  }));
  const mine = (next) => next.train === train.name || next.targets.some((name) => train.at_work.some((car) => car.hosts.includes(name)));
  const coming = train.where === "through" ? [] : store.facts.next.filter(mine);
  const next = coming.length ? el("ul", { class: "plainlist" }, coming.slice(0, 8).map((one) => el("li", {}, el("b", {}, one.kind.replaceAll("_", " ")), " ", one.targets.every((name) => store.facts.nodes[name]) ? nodesOf(one.targets, 4) : one.targets.join(", "),
    el("p", { class: one.refused ? "note held" : "note" }, one.refused ? `stopped by ${one.refused}: ${one.why}` : one.why)))) : null;
  const failed = train.failed.map((car) => el("p", { class: "bad" }, nodesOf(car.hosts, 6), `: ${car.stage.toLowerCase()}${car.why ? `, ${car.why}` : ""}`));
  return el("section", { class: "card", "data-train": train.name }, el("div", { class: "head" }, el("h1", {}, train.name),
    el("span", { class: train.where === "paused" ? "state held" : "state" }, train.where), el("span", { class: "sub" }, train.why), train.emergency ? el("span", { class: "bad" }, "emergency") : null, button),
  bar, keys, track, facts([
    ["Carries", train.operations.join(", ") || "nothing any more"], ["Taken off", train.off.join("; ")],
    ["Started", moment(train.started_at)], train.where === "through" ? ["Through", train.ended_at ? `${moment(train.ended_at)}, after ${lasting(train.ended_at - train.started_at)}` : ""]
      : ["Every host by", `${moment(train.deadline)}, in ${lasting(train.deadline - now())}`],
    ["Went wrong", train.bad.map(([name, count]) => `${name}: ${many(count, "host")}`).join(", ")],
    ["Failed", failed.length ? failed : ""], ["Next", next ?? (train.where === "through" ? "" : train.where === "paused" ? "nothing, until it goes on" : train.in_hand ? "nothing, until what is under way is done" : "nothing at this moment")],
  ]));
}
