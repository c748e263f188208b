// The life of one node: how it stands, what speaks against it, and everything that was seen of it or done to it.
import { el, facts, jobLink, lasting, moment, stateOf, table } from "./words.js";
import { fetched, now, store, watch } from "./store.js";
import { item } from "./feed.js";
import { confirm } from "./asking.js";

const WAITS = new Set(["REPAIR", "LEMON", "QUARANTINED"]);

export function nodeView(root, name) {
  let shown = "";
  const load = async () => {
    const found = await fetched(`/api/node/${encodeURIComponent(name)}`);
    const text = JSON.stringify(found);
    if (text === shown) return;
    shown = text;
    draw(found);
  };
  function draw(found) {
    if (!found) {
      root.replaceChildren(el("h1", {}, name), el("p", { class: "empty" }, "Slurm has no such node."));
      return;
    }
    const { fact, slurm, host, versions } = found;
    const release = store.actions && (WAITS.has(fact.state) || host?.stage === "FAILED")
      ? el("button", { class: "act right", onclick: () => confirm("release", name) }, "Release this node") : null;
    const where = found.leaf ? found.leaf.filter(Boolean).join(" · ") : "";
    const now_ = el("section", { class: "card" }, el("h2", {}, "Now"), facts([
      ["With the controller", `${fact.state.toLowerCase()}${fact.since ? `, for ${lasting(now() - fact.since)}` : ""}`],
      ["Why", fact.why], ["Slurm says", slurm.state ?? fact.slurm], ["Reason in Slurm", slurm.reason],
      ["Jobs", fact.jobs.length ? fact.jobs.flatMap((id, at) => (at ? [", ", jobLink(id)] : [jobLink(id)])) : "none"],
      ["Links", fact.links < 1 ? `${Math.round(100 * fact.links)} % sound` : ""],
    ]));
    const what = el("section", { class: "card" }, el("h2", {}, "What it is"), facts([
      ["Partitions", (slurm.partitions ?? []).join(", ")], ["GPUs", slurm.gres], ["CPUs", slurm.cpus || ""],
      ["Memory", slurm.memory_mib ? `${Math.round(slurm.memory_mib / 1024)} GiB` : ""], ["Features", (slurm.features ?? []).join(", ")],
      ["slurmd", slurm.version], ["Under jobs", `${found.busy_days.toFixed(1)} days of the last weeks`],
      ["Versions", Object.entries(versions).map(([key, value]) => `${key} ${value}`).join(", ")],
      ["Train", host ? `${host.train}, car ${host.car}: ${host.stage.toLowerCase()}${host.why ? `, ${host.why}` : ""}` : ""],
    ]));
    const evidence = found.evidence.length ? el("section", { class: "card" }, el("h2", {}, "What speaks against it"),
      table("Evidence", [["When"], ["Kind"], ["Severity"], ["What", "wide"], ["Share of a failure", "n"]],
        [...found.evidence].reverse().map((one) => [moment(one.at), one.kind.replaceAll("_", " "), one.severity, one.what, one.weight ? one.weight.toFixed(2) : "–"]))) : null;
    const life = el("section", { class: "card" }, el("h2", {}, "Its life"), found.events.length
      ? el("ol", { class: "feed long" }, [...found.events].reverse().map((one) => item({ ...one, why: one.detail, tone: tone(one.what) }, true)))
      : el("p", { class: "empty" }, "Nothing was seen of it but health."));
    root.replaceChildren(el("p", { class: "crumb" }, el("a", { href: "#/" }, "Fleet"), where ? ` · ${where}` : ""),
      el("div", { class: "head" }, el("h1", {}, name), stateOf(fact.look), release),
      el("div", { class: "halves" }, now_, what), ...[evidence, life].filter(Boolean));
  }
  load();
  return watch((change) => { if (change.full || change.nodes?.[name] || change.feed?.length) load(); });
}

function tone(what) {
  if (/ (proposed|refused)$/.test(what)) return "held";
  if (/^(evidence|drain|quarantine)|abandoned$|(SUSPECT|QUARANTINING|FOREIGN|REPAIR|LEMON|FAILED)$/.test(what)) return "bad";
  return /^(resume|release)|(OK|DONE)$/.test(what) ? "good" : "plain";
}
