// The fleet on a canvas: pods are panels, leaves are blocks, nodes are cells. Everything is laid out once and drawn as
// a whole; 2,048 cells cost a few milliseconds.
import { LOOKS, el, lasting, mark, palette } from "./words.js";
import { now } from "./store.js";

const cellOf = (count) => (count <= 40 ? 54 : count <= 130 ? 34 : count <= 600 ? 19 : count <= 1200 ? 14 : count <= 4500 ? 11 : 7);

function across(widest) {
  return widest <= 4 ? widest : widest <= 8 ? 4 : widest <= 32 ? 8 : 16;
}

// How many leaves stand side by side in a panel: as many as there is room for, with the last row as full as can be.
function columnsOf(leaves, room) {
  const most = Math.max(1, Math.min(leaves, room));
  const rows = Math.ceil(leaves / most);
  return Math.ceil(leaves / rows);
}

export function layOut(facts, width, wires) {
  const count = Object.keys(facts.nodes).length, cell = cellOf(count), gap = Math.max(2, Math.round(cell * 0.13));
  const widest = Math.max(1, ...facts.pods.flatMap((pod) => pod.leaves.map((leaf) => leaf.nodes.length)));
  const single = facts.pods.every((pod) => pod.leaves.every((leaf) => leaf.name === ""));
  const columns = single ? Math.max(1, Math.floor((width - 20) / (cell + gap))) : across(widest);
  const rail = wires ? Math.max(4, Math.round(cell * 0.2)) : 0, head = rail ? rail + 4 : 0;
  const pad = Math.max(5, Math.round(cell * 0.22)), label = single ? 0 : 16, space = 8;
  const leafWidth = columns * (cell + gap) - gap + 2 * pad;
  const nodes = [], leaves = [], pods = [];
  const panels = facts.pods.some((pod) => pod.name !== ""), inset = panels ? 14 : 0;
  const most = Math.max(1, ...facts.pods.map((pod) => pod.leaves.length));
  // Panels of many small leaves are as square as can be, so that several stand side by side.
  const square = panels && facts.pods.length > 1 ? Math.max(1, Math.round(Math.sqrt(most * 1.05))) : most;
  const room = Math.floor((width - 2 * inset + space) / (leafWidth + space));
  const perRow = columnsOf(most, Math.min(room, square));
  const podWidth = perRow * (leafWidth + space) - space + 2 * inset;
  const side = panels ? Math.max(1, Math.min(facts.pods.length, Math.floor((width + 14) / (podWidth + 14)))) : 1;
  const spread = panels ? Math.floor((width + 14) / side) - 14 : width;
  // What is left over goes between the leaves.
  const between = panels && perRow > 1 ? Math.min(22, (spread - 2 * inset - perRow * leafWidth) / (perRow - 1)) : space;
  let y = 0, lowest = 0;
  facts.pods.forEach((pod, slot) => {
    if (slot % side === 0) y = lowest + (slot ? 14 : 0);
    const left = (slot % side) * (spread + 14), top = y + (panels ? 38 : 0);
    let row = top, tallest = 0;
    pod.leaves.forEach((leaf, number) => {
      if (number && number % perRow === 0) { row += tallest + space; tallest = 0; }
      const x = left + inset + (number % perRow) * (leafWidth + between);
      const rows = Math.ceil(leaf.nodes.length / columns);
      const height = label + head + rows * (cell + gap) - gap + 2 * pad;
      const first = row + pad + label + head;
      leaves.push({ leaf, x, y: row, width: leafWidth, height, pad, rail, label });
      leaf.nodes.forEach((name, at) => nodes.push({
        name, leaf: leaf.name, pod: pod.name,
        x: x + pad + (at % columns) * (cell + gap), y: first + Math.floor(at / columns) * (cell + gap),
      }));
      tallest = Math.max(tallest, height);
    });
    const bottom = row + tallest + inset;
    if (panels) pods.push({ name: pod.name, x: left, y, width: spread, height: bottom - y, count: pod.leaves.reduce((sum, leaf) => sum + leaf.nodes.length, 0) });
    lowest = Math.max(lowest, bottom);
  });
  return { nodes, leaves, pods, cell, height: Math.max(40, lowest), width };
}

export class FleetMap {
  constructor(open) {
    this.open = open;
    this.only = "";
    this.wires = false;
    this.at = -1;
    this.canvas = el("canvas", {
      tabindex: "0", role: "application", "aria-roledescription": "map", "aria-label": "Fleet map",
      "aria-describedby": "map-keys",
    });
    this.canvas.fleet = this; // for whoever looks at single nodes in a test
    this.tip = el("div", { class: "tip", hidden: true });
    this.keys = el("p", { class: "unseen", id: "map-keys" },
      "Arrow keys go from node to node, Enter opens one. The same is in the table.");
    this.element = el("div", { class: "map" }, this.canvas, this.tip, this.keys);
    this.canvas.addEventListener("pointermove", (event) => this.point(this.under(event), false));
    this.canvas.addEventListener("pointerleave", () => this.point(-1, false));
    this.canvas.addEventListener("click", (event) => this.go(this.under(event)));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.point(-1, false));
    new ResizeObserver(() => this.resized()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.paint = null; this.draw(); });
  }

  show(facts) {
    const anew = !this.facts || this.facts.pods !== facts.pods;
    this.facts = facts;
    if (anew) this.resized();
    else this.draw();
  }

  resized() {
    const width = this.element.clientWidth;
    if (!width || !this.facts) return;
    this.plan = layOut(this.facts, width, this.wires);
    this.number = new Map(this.plan.nodes.map((place, at) => [place.name, at]));
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(this.plan.height * scale);
    this.canvas.style.height = `${this.plan.height}px`;
    this.draw();
  }

  draw() {
    if (!this.plan) return;
    const context = this.canvas.getContext("2d"), scale = devicePixelRatio || 1, { plan } = this;
    const paint = (this.paint ??= palette());
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, plan.width, plan.height);
    context.textBaseline = "alphabetic";
    for (const pod of plan.pods) {
      context.fillStyle = paint.card;
      context.strokeStyle = paint.line;
      context.lineWidth = 1;
      context.beginPath();
      context.roundRect(pod.x + 0.5, pod.y + 0.5, pod.width - 1, pod.height - 1, 10);
      context.fill();
      context.stroke();
      context.fillStyle = paint.ink;
      context.font = "600 13px system-ui, sans-serif";
      context.fillText(pod.name, pod.x + 16, pod.y + 25);
      const wide = context.measureText(pod.name).width;
      context.fillStyle = paint.soft;
      context.font = "13px system-ui, sans-serif";
      context.fillText(`${pod.count} nodes`, pod.x + 16 + wide + 9, pod.y + 25);
    }
    for (const block of plan.leaves) this.drawLeaf(context, block, paint);
    const names = plan.cell >= 30;
    context.textAlign = "center";
    plan.nodes.forEach((place, number) => {
      const node = this.facts.nodes[place.name];
      if (!node) return;
      context.globalAlpha = this.only && node.look !== this.only ? 0.16 : 1;
      mark(context, node.look, place.x, place.y, plan.cell, paint, names);
      if (names) this.name(context, place, node, paint);
      if (this.wires && node.links < 1) {
        const corner = plan.cell * 0.42;
        context.fillStyle = paint.bad;
        context.strokeStyle = paint.card;
        context.lineWidth = 1.5;
        context.beginPath();
        context.moveTo(place.x + plan.cell - corner, place.y);
        context.lineTo(place.x + plan.cell, place.y);
        context.lineTo(place.x + plan.cell, place.y + corner);
        context.closePath();
        context.fill();
        context.stroke();
      }
      if (number === this.at) {
        context.globalAlpha = 1;
        context.strokeStyle = paint.ink;
        context.lineWidth = 2;
        context.beginPath();
        context.roundRect(place.x - 2, place.y - 2, plan.cell + 4, plan.cell + 4, 5);
        context.stroke();
      }
    });
    context.globalAlpha = 1;
    context.textAlign = "start";
    this.canvas.setAttribute("aria-label", `Fleet map. ${this.summary()}`);
  }

  drawLeaf(context, block, paint) {
    const { leaf, x, y, width, height, pad, rail } = block;
    context.fillStyle = paint.sunk;
    context.beginPath();
    context.roundRect(x, y, width, height, 7);
    context.fill();
    if (leaf.name) {
      context.fillStyle = paint.soft;
      context.font = "11.5px system-ui, sans-serif";
      const room = width - 2 * pad - (leaf.uplinks && this.wires ? 26 : 0);
      let shown = leaf.name;
      while (shown.length > 1 && context.measureText(shown).width > room) shown = `${shown.slice(0, -2)}…`;
      context.fillText(shown, x + pad, y + pad + 9);
    }
    if (!rail) return;
    if (leaf.uplinks) {
      context.fillStyle = paint.bad;
      context.font = "600 11px system-ui, sans-serif";
      context.textAlign = "right";
      context.fillText(`▲${leaf.uplinks}`, x + width - pad, y + pad + 9);
      context.textAlign = "start";
    }
    const wide = (width - 2 * pad) / Math.max(1, leaf.rails.length);
    leaf.rails.forEach((bad, at) => {
      context.fillStyle = bad ? paint.bad : paint["free-edge"];
      const tall = bad ? rail : rail - 2;
      context.fillRect(x + pad + at * wide, y + pad + block.label - 1 + (bad ? 0 : 1), Math.max(1, wide - 1.5), tall);
    });
  }

  name(context, place, node, paint) {
    const { cell } = this.plan;
    const dark = node.look === "free" || node.look === "watched";
    if (node.look !== "busy" && node.look !== "free") {
      // The mark has the middle; the name goes below it.
      context.font = `500 ${cell >= 40 ? 10.5 : 9}px system-ui, sans-serif`;
      context.fillStyle = dark ? paint["mark-dark"] : paint.mark;
      context.fillText(place.name, place.x + cell / 2, place.y + cell - cell * 0.13, cell - 2);
      return;
    }
    context.font = `500 ${cell >= 40 ? 12 : 10}px system-ui, sans-serif`;
    context.fillStyle = node.look === "free" ? paint.soft : paint.mark;
    context.fillText(place.name, place.x + cell / 2, place.y + cell / 2 + 4, cell - 4);
  }

  summary() {
    const found = Object.entries(this.facts.counts).filter(([, count]) => count).map(([look, count]) => `${count} ${LOOKS[look]}`);
    return `${Object.keys(this.facts.nodes).length} nodes: ${found.join(", ")}.`;
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const { cell } = this.plan;
    return this.plan.nodes.findIndex((place) => x >= place.x && x <= place.x + cell && y >= place.y && y <= place.y + cell);
  }

  point(at, spoken) {
    this.canvas.style.cursor = at >= 0 ? "pointer" : "default";
    if (at === this.at) return;
    this.at = at;
    this.draw();
    this.tip.hidden = at < 0;
    if (at < 0) return;
    const place = this.plan.nodes[at], node = this.facts.nodes[place.name];
    const since = node.since ? ` for ${lasting(now() - node.since)}` : "";
    const lines = [`${LOOKS[node.look]}${since} · ${node.slurm.toLowerCase()}`];
    if (node.jobs.length) lines.push(`job ${node.jobs.join(", ")}`);
    if (node.why) lines.push(node.why);
    if (node.links < 1) lines.push(`links ${Math.round(100 * node.links)} % sound`);
    this.tip.replaceChildren(el("b", {}, place.name), ...lines.map((line) => el("p", {}, line)));
    const left = Math.min(place.x, this.plan.width - this.tip.offsetWidth - 4);
    const below = place.y + this.plan.cell + 8;
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${below}px`;
    if (spoken) document.getElementById("spoken").textContent = `${place.name}: ${lines.join(". ")}`;
  }

  go(at) {
    if (at >= 0) this.open(this.plan.nodes[at].name);
  }

  key(event) {
    const { nodes } = this.plan, here = nodes[this.at];
    let to = -1;
    if (event.key === "Enter" && here) return this.go(this.at);
    if (event.key === "Escape") return this.point(-1, false);
    if (!event.key.startsWith("Arrow") && event.key !== "Home" && event.key !== "End") return undefined;
    event.preventDefault();
    if (!here || event.key === "Home") to = 0;
    else if (event.key === "End") to = nodes.length - 1;
    else if (event.key === "ArrowLeft") to = Math.max(0, this.at - 1);
    else if (event.key === "ArrowRight") to = Math.min(nodes.length - 1, this.at + 1);
    else {
      const sign = event.key === "ArrowDown" ? 1 : -1;
      let best = Infinity;
      nodes.forEach((place, number) => {
        const down = sign * (place.y - here.y);
        const off = down + 3 * Math.abs(place.x - here.x);
        if (down > 2 && off < best) { best = off; to = number; }
      });
      if (to < 0) return undefined;
    }
    return this.point(to, true);
  }

  hide(look) {
    this.only = look;
    this.draw();
  }

  rails(on) {
    this.wires = on;
    this.resized();
  }
}
