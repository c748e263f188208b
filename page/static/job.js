// The life of one job: its cycles on a line of time, what ended each and what that cost, and what it reports.
import { clock, el, facts, lasting, many, moment, nodeLink, nodesOf, svg, table } from "./words.js";
import { fetched, now, store, watch } from "./store.js";
import { item } from "./feed.js";
import { WIDE, valueChart } from "./chart.js";

const AGAIN_MS = 2000; // its record is a file: nobody tells of a change
const WIDTH = WIDE, TALL = 22;

export function jobView(root, number) {
  let shown = "";
  const load = async () => {
    const found = await fetched(`/api/job/${number}`).catch(() => null);
    const text = JSON.stringify(found);
    if (!found || text === shown) return;
    shown = text;
    const focused = root.contains(document.activeElement) && document.activeElement !== root ? document.activeElement.getAttribute("href") : null;
    draw(found);
    if (focused) root.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  };
  function draw(found) {
    const { slurm, life, record, nodes } = found, { cycles } = life;
    const fact = store.facts.jobs.find((job) => job.job_id === found.job_id);
    const crumb = el("p", { class: "crumb" }, el("a", { href: "#/jobs" }, "Jobs"), slurm ? ` · ${slurm.user} · ${slurm.partition}` : "");
    if (!slurm && !found.events.length && !cycles.length) {
      root.replaceChildren(crumb, el("h1", {}, `Job ${number}`), el("p", { class: "empty" }, "Slurm does not list this job, and the controller has nothing to say of it."));
      return;
    }
    const head = el("div", { class: "head" }, el("h1", {}, `Job ${number}`), el("span", { class: "sub" }, slurm?.name ?? ""),
      el("span", { class: "state" }, (slurm?.state ?? "no longer in Slurm").toLowerCase().replaceAll("_", " ")));
    const restarts = slurm?.restarts ?? 0;
    const figures = el("section", { class: "card figures" }, figure(nodes.length || slurm?.node_count || 0, "nodes"),
      slurm?.start_time && slurm.state === "RUNNING" ? figure(lasting(now() - slurm.start_time), "since Slurm started it") : null,
      life.readable ? figure(cycles.length, cycles.length === 1 ? "start of its ranks" : "starts of its ranks") : null, figure(restarts, restarts === 1 ? "requeue" : "requeues"),
      life.readable ? figure(lasting(life.lost_s), "lost to restarts", life.lost_s > 0) : null,
      life.step !== null && life.step !== undefined ? figure(life.step.toLocaleString("en"), "last step") : null);
    const parts = [crumb, head, figures];
    if (cycles.length) {
      parts.push(el("section", { class: "card" }, el("h2", {}, "Its time"), timeline(cycles, now()),
        el("p", { class: "keys" }, key("run", "gets further"), key("lost", "lost: from the fault to the first step after it"), key("wait", "waits or starts"))));
      parts.push(el("section", { class: "card" }, el("h2", {}, "Starts of its ranks, and what ended them"), rows(cycles, life.step)));
    } else if (life.launcher) {
      parts.push(el("p", { class: "note" }, "What the launcher wrote of it cannot be read here: its run folder belongs to its user, or has gone."));
    } else if (slurm) {
      parts.push(el("p", { class: "note" }, "It was not started by trainmaster's launcher, so there is no record of what happened inside it; what Slurm and the controller know is below."));
    }
    const curves = Object.entries(life.curves).filter(([, points]) => points.length > 1);
    if (curves.length) {
      parts.push(el("div", { class: "halves" }, curves.map(([name, points]) => el("section", { class: "card" }, el("h2", {}, `${name}, by step`), valueChart(name, points, curves.length > 1 ? WIDE / 2 : WIDE)))),
        el("p", { class: "note" }, "Values as the job reported them, sampled while this page has been running."));
    }
    parts.push(el("section", { class: "card" }, el("h2", {}, "Where it runs"), facts([
      ["Nodes", nodes.length ? nodesOf(nodes) : "none now"], ["Waits for", slurm?.state === "PENDING" ? slurm.reason : ""],
      ["With the controller", fact?.note || (record ? "as usual" : "")], ["Folder", life.folder ?? ""],
    ])));
    const events = [...found.events.map((one) => ({ ...one, why: one.detail })), ...life.remarks.map(remark)].sort((a, b) => b.at - a.at);
    if (events.length) parts.push(el("section", { class: "card" }, el("h2", {}, "What was seen and done"), el("ol", { class: "feed long" }, events.map((one) => item({ ...one, tone: one.tone ?? tone(one.what) }, true)))));
    root.replaceChildren(...parts);
  }
  load();
  const again = setInterval(load, AGAIN_MS);
  const stop = watch((change) => { if (change.full || change.jobs || change.feed?.length) load(); });
  return () => { clearInterval(again); stop(); };
}

const figure = (value, words, bad = false) => el("div", {}, el("div", { class: bad ? "big bad" : "big" }, String(value)), el("p", {}, words));
const key = (kind, words) => el("span", {}, el("i", { class: `seg-${kind}` }), words);
const tone = (what) => (/^(came back|hold)/.test(what) ? "bad" : /^release/.test(what) ? "good" : /(proposed|refused)$/.test(what) ? "held" : "plain");
const WORDS = {
  NODE_LOST: "a node was lost", STRAGGLER: "a rank is slow", SWAP: "asked to leave nodes", DIAGNOSED: "its nodes were tested", DIVERGED: "its values went wrong",
  REFILL: "asked Slurm for another node", JOINED: "a new node joined",
};
const remark = (one) => ({ at: one.at, what: WORDS[one.state] ?? one.state.toLowerCase(), why: [one.cause?.replaceAll("_", " "), one.nodes.join(", ")].filter(Boolean).join(": "), tone: one.state === "NODE_LOST" || one.state === "DIVERGED" ? "bad" : "plain" });

// Pieces of one cycle: until its ranks stand, until its first step (lost if a fault came before), and what got further.
export function pieces(cycles, until) {
  const found = [];
  let before = null;
  for (const row of cycles) {
    const end = row.fault_s ?? row.ended_s ?? until, lost = row.lost_to !== null;
    const begun = row.first_step_s ?? row.running_s;
    if (before !== null && begun !== null && begun > before) found.push({ kind: lost ? "lost" : "wait", from: before, to: Math.min(begun, end), row });
    else if (row.running_s !== null && row.first_step_s !== null && before === null) found.push({ kind: "wait", from: row.running_s, to: row.first_step_s, row });
    if (begun !== null && end > begun) found.push({ kind: "run", from: begun, to: end, row });
    if (begun === null && before !== null && row.ended_s === null) found.push({ kind: lost || row.cause === null ? "lost" : "wait", from: before, to: until, row });
    before = end;
  }
  return found;
}

function timeline(cycles, until) {
  const alone = new Set(cycles.map((row) => `${row.role} ${row.replica ?? ""}`)).size;
  const lanes = alone > 1 ? [...new Set(cycles.map((row) => `${row.role}${row.replica === null ? "" : `.${row.replica}`}`))] : [""];
  const laneOf = (row) => (alone > 1 ? lanes.indexOf(`${row.role}${row.replica === null ? "" : `.${row.replica}`}`) : 0);
  const all = lanes.flatMap((_, lane) => pieces(cycles.filter((row) => laneOf(row) === lane), until).map((one) => ({ ...one, lane })));
  if (!all.length) return el("p", { class: "empty" }, "Its ranks have not started yet.");
  const from = Math.min(...all.map((one) => one.from)), to = Math.max(...all.map((one) => one.to), from + 1), left = alone > 1 ? 110 : 0;
  const x = (at) => left + ((at - from) / (to - from)) * (WIDTH - left), step = TALL + 16, height = lanes.length * step + 22;
  const bars = all.map((one) => svg("rect", { class: `seg-${one.kind}`, x: x(one.from).toFixed(1), y: one.lane * step + 8, width: Math.max(1.5, x(one.to) - x(one.from) - 1).toFixed(1), height: TALL, rx: 3 },
    svg("title", {}, `${{ run: "gets further", lost: "lost", wait: "waits or starts" }[one.kind]} for ${lasting(one.to - one.from)}`)));
  const faults = cycles.filter((row) => row.fault_s).map((row) => svg("path", { class: "restart", d: `M${x(row.fault_s).toFixed(1)} ${laneOf(row) * step + 1}v${TALL + 14}` }));
  const names = alone > 1 ? lanes.map((name, lane) => svg("text", { x: 0, y: lane * step + 24 }, name)) : [];
  const ends = [svg("text", { x: left, y: height - 2 }, clock(from)), svg("text", { x: WIDTH, y: height - 2, "text-anchor": "end" }, `${clock(to)}, ${lasting(to - from)} later`)];
  const lost = all.filter((one) => one.kind === "lost").reduce((sum, one) => sum + one.to - one.from, 0);
  return svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${many(cycles.length, "start")} in ${lasting(to - from)}, of which ${lasting(lost)} were lost to restarts` }, bars, faults, names, ends);
}

function rows(cycles, lastStep) {
  const roles = cycles.some((row) => row.role);
  const columns = [["Start"], ...(roles ? [["Role"]] : []), ["At"], ["Nodes", "wide"], ["Got further for", "n"], ["Until step", "n"], ["What ended it", "wide"], ["Lost before it", "n"]];
  return table("Starts of its ranks", columns, cycles.map((row) => {
    const begun = row.first_step_s ?? row.running_s, end = row.fault_s ?? row.ended_s;
    const swapped = row.swapped_in.length ? el("p", { class: "good" }, "new: ", row.swapped_in.flatMap((name, at) => (at ? [", ", nodeLink(name)] : [nodeLink(name)]))) : null;
    const dead = row.dead.length ? el("p", { class: "bad" }, "lost: ", row.dead.flatMap((name, at) => (at ? [", ", nodeLink(name)] : [nodeLink(name)]))) : null;
    const cells = [`${row.attempt}.${row.cycle}`, ...(roles ? [`${row.role}${row.replica === null ? "" : `.${row.replica}`}`] : []), row.running_s ? moment(row.running_s) : "–",
      el("div", {}, nodesOf(row.nodes), swapped, dead), begun ? lasting((end ?? now()) - begun) : "–", stepOf(row, lastStep),
      el("div", {}, ended(row), row.why ? el("p", { class: "soft" }, row.why.replaceAll("_", " ")) : null), row.lost_s === null ? "–" : lasting(row.lost_s)];
    return cells;
  }));
}

const stepOf = (row, last) => { const step = row.ended_s === null ? last ?? row.step : row.step; return step === null ? "–" : step.toLocaleString("en"); };
const ended = (row) => ({ RUNNING: "runs", STARTING: "starts", RESTARTING: "restarted" }[row.state] ?? row.state.toLowerCase().replaceAll("_", " "));
