// What is known, kept fresh by server-sent events; and how old it is, which is told whatever happens.
import { clock } from "./words.js";

export const store = { facts: null, heardAt: 0, lost: 0, actions: false, word: "", received: 0 };
const listeners = new Set();
let source = null;
let ahead = 0; // this machine's clock less the server's, seconds

export const watch = (listener) => { listeners.add(listener); return () => listeners.delete(listener); };
const tell = (change) => listeners.forEach((listener) => listener(change));
export const now = () => Date.now() / 1000 - ahead;

export async function enter(token) {
  const answer = await fetch("/api/enter", { method: "POST", body: JSON.stringify({ token }) });
  return take(answer);
}

export async function resume() {
  return take(await fetch("/api/session"));
}

async function take(answer) {
  if (!answer.ok) return false;
  const { actions, word } = await answer.json();
  Object.assign(store, { actions, word });
  return true;
}

export async function ask(verb, target, why) {
  const answer = await fetch("/api/act", {
    method: "POST", headers: { "x-trainmaster-word": store.word, "content-type": "application/json" },
    body: JSON.stringify({ verb, target, why }),
  });
  return { ok: answer.ok, ...(await answer.json()) };
}

export const close = () => source?.close();

export async function fetched(path) {
  const answer = await fetch(path);
  return answer.ok ? answer.json() : null;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (store.facts) tell({ full: true }); });

export function listen() {
  source?.close();
  source = new EventSource("/api/events");
  source.addEventListener("whole", (event) => begin(JSON.parse(event.data)));
  source.addEventListener("change", async (event) => {
    store.received = performance.now();
    const change = JSON.parse(event.data);
    if (change.full) return begin(await fetched("/api/facts"));
    heard(change.at);
    for (const node of Object.values(change.nodes)) store.facts.nodes[node.name] = complete(node);
    const feed = [...change.feed, ...store.facts.feed].slice(0, 300);
    Object.assign(store.facts, { ...change, nodes: store.facts.nodes, feed });
    tell(change);
  });
  source.addEventListener("alive", () => { heard(0); tell({}); });
  source.addEventListener("error", async () => {
    if (!store.facts) return; // not let in yet
    if (!store.lost) store.lost = now();
    tell({});
    if (source.readyState === EventSource.CLOSED) {
      // A server that was started anew does not know this session any more.
      const answer = await fetch("/api/session").catch(() => null);
      if (answer && answer.status === 401) location.reload();
      else setTimeout(listen, 2000);
    }
  });
}

// What is as usual is not sent.
const USUAL = { state: "OK", why: "", since: 0, jobs: [], stage: "", links: 1 };
function complete(node) {
  for (const name in USUAL) node[name] ??= USUAL[name];
  return node;
}

function begin(facts) {
  if (!facts) return;
  heard(facts.at);
  for (const node of Object.values(facts.nodes)) complete(node);
  store.facts = facts;
  tell({ full: true });
}

function heard(at) {
  const own = Date.now() / 1000;
  store.heardAt = own;
  store.lost = 0;
  if (at && Math.abs(own - ahead - at) > 60) ahead = own - at; // clocks differ: ages are told by the server's
}

// What is wrong with how new this is, in words, and how many seconds old it is by now; ["", 0] when nothing is. The words
// stay the same while it lasts, so that they are read out once and not every second.
export function staleness() {
  const { facts, lost } = store;
  if (!facts) return ["", 0];
  if (lost) return [`This page has lost its server. What you see is as of ${clock(facts.at)}.`, now() - facts.at];
  if (!facts.at) return [facts.trouble ? `Slurm has not answered yet: ${facts.trouble}` : "Slurm has not answered yet.", 0];
  if (facts.trouble) return [`Slurm does not answer. Nodes and jobs are as of ${clock(facts.at)}: ${facts.trouble}`, now() - facts.at];
  if (now() - facts.at > Math.max(30, 3 * facts.every_s)) return [`The page's server has not looked at Slurm since ${clock(facts.at)}.`, now() - facts.at];
  if (!facts.controller_at) return ["No controller is at work on this journal: what nodes and jobs are stands here as Slurm tells it, without decisions.", 0];
  const old = now() - facts.controller_at;
  if (old > Math.max(30, 6 * facts.tick_s)) return [`The controller has not looked since ${clock(facts.controller_at)}. Decisions and trains are as of then; nodes and jobs are fresh.`, old];
  return ["", 0];
}
