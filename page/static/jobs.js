// All jobs: those that run by size, then those that wait, with what the controller has to say of each.
import { el, jobLink, lasting, many, table } from "./words.js";
import { now, store, watch } from "./store.js";

const remembered = { text: "" };
const ROWS_MAX = 300;

export function jobsView(root) {
  const sub = el("span", { class: "sub" });
  const body = el("div", { class: "card" });
  const search = el("input", {
    type: "search", placeholder: "Name, user, partition or number", "aria-label": "Filter the jobs", value: remembered.text,
    oninput: (event) => { remembered.text = event.target.value; draw(); },
  });
  function draw() {
    const { jobs, jobs_total: total } = store.facts, words = remembered.text.toLowerCase();
    const running = jobs.filter((job) => job.state === "RUNNING").length;
    sub.textContent = `${running.toLocaleString("en")} running · ${(total - running).toLocaleString("en")} others`;
    const found = jobs.filter((job) => !words || `${job.job_id} ${job.name} ${job.user} ${job.partition} ${job.note} ${job.state}`.toLowerCase().includes(words));
    const rows = found.slice(0, ROWS_MAX).map((job) => [jobLink(job.job_id), job.name, job.user, job.partition, job.state.toLowerCase(),
      String(job.nodes), job.start && job.state === "RUNNING" ? lasting(now() - job.start) : "", job.restarts ? String(job.restarts) : "–", job.note]);
    const left = found.length + total - jobs.length - rows.length;
    body.replaceChildren(rows.length ? table("Jobs", [["Job"], ["Name", "wide"], ["User"], ["Partition"], ["State"], ["Nodes", "n"], ["Runs for", "n"], ["Requeues", "n"], ["What the controller says", "wide"]], rows)
      : el("p", { class: "empty" }, words ? "No job is called that." : "Slurm has no jobs."),
    left > 0 ? el("p", { class: "note" }, `and ${many(left, "job")} more: filter to see them`) : "");
  }
  root.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Jobs"), sub, el("div", { class: "bar right" }, search)), body);
  draw();
  return watch((change) => { if (change.full || change.jobs) draw(); });
}
