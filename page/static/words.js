// Words, times and small pieces of the document. Text is only ever set as text: names of jobs are their users' own.

export const LOOKS = {
  busy: "in use", free: "free", watched: "watched", train: "in maintenance", ours: "taken out by us",
  others: "drained by others", down: "down",
};

export function el(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return found;
}

export function svg(tag, attributes = {}, ...children) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) found.setAttribute(name, value);
  found.append(...children.flat().filter(Boolean));
  return found;
}

const two = (number) => String(number).padStart(2, "0");

export function clock(epochS) {
  const when = new Date(epochS * 1000);
  return `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

export function moment(epochS) {
  if (!epochS) return "never";
  const when = new Date(epochS * 1000), now = new Date();
  if (when.toDateString() === now.toDateString()) return clock(epochS);
  const day = when.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return `${day}, ${two(when.getHours())}:${two(when.getMinutes())}`;
}

export function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return `${(s / 86400).toFixed(1)} days`;
}

export const many = (count, one, several) => `${count.toLocaleString("en")} ${count === 1 ? one : several ?? `${one}s`}`;

// n01, n02, n03, n07 -> n[01-03,07], as Slurm writes it.
export function fold(names) {
  const groups = new Map();
  for (const name of names) {
    const [, head, digits] = /^(.*?)(\d*)$/.exec(name);
    const key = `${head}\n${digits.length}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(digits);
  }
  return [...groups].map(([key, digits]) => {
    const head = key.split("\n")[0];
    if (digits.length === 1) return head + digits[0];
    const numbers = digits.map(Number).sort((a, b) => a - b), width = digits[0].length, ranges = [];
    for (let from = 0; from < numbers.length; ) {
      let to = from;
      while (to + 1 < numbers.length && numbers[to + 1] === numbers[to] + 1) to += 1;
      const text = (at) => String(numbers[at]).padStart(width, "0");
      ranges.push(from === to ? text(from) : `${text(from)}-${text(to)}`);
      from = to + 1;
    }
    return `${head}[${ranges.join(",")}]`;
  }).join(",");
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The mark of a state, as drawn on the map and in every list: nobody has to tell colours apart.
// A cell that carries its name has the mark in its upper part.
export function mark(context, look, x, y, size, paint, named = false) {
  const round = Math.min(4, size * 0.2);
  context.beginPath();
  context.roundRect(x, y, size, size, round);
  context.fillStyle = paint[look];
  context.fill();
  if (look === "free") {
    context.strokeStyle = paint["free-edge"];
    context.lineWidth = 1;
    context.beginPath();
    context.roundRect(x + 0.5, y + 0.5, size - 1, size - 1, round);
    context.stroke();
    return;
  }
  if (look === "busy") return;
  if (named) { x += size * 0.2; y += size * 0.06; size *= 0.6; }
  const ink = look === "watched" ? paint["mark-dark"] : paint.mark;
  context.strokeStyle = context.fillStyle = ink;
  context.lineWidth = Math.max(1.2, size * 0.12);
  context.lineCap = "round";
  context.beginPath();
  const a = size * 0.29, b = size * 0.71, m = size / 2;
  if (look === "down") {
    context.moveTo(x + a, y + a); context.lineTo(x + b, y + b);
    context.moveTo(x + b, y + a); context.lineTo(x + a, y + b);
  } else if (look === "ours") {
    context.moveTo(x + a, y + b); context.lineTo(x + b, y + a);
  } else if (look === "others") {
    context.moveTo(x + a, y + m); context.lineTo(x + b, y + m);
  } else if (look === "train") {
    context.moveTo(x + a, y + size * 0.38); context.lineTo(x + b, y + size * 0.38);
    context.moveTo(x + a, y + size * 0.62); context.lineTo(x + b, y + size * 0.62);
  } else if (look === "watched") {
    context.arc(x + m, y + m, size * 0.15, 0, 7);
    context.fill();
    return;
  }
  context.stroke();
}

export function palette() {
  const names = [...Object.keys(LOOKS), "free-edge", "mark", "mark-dark", "card", "sunk", "line", "ink", "soft", "faint",
    "accent", "paper", "bad"];
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export function swatch(look) {
  const canvas = el("canvas", { class: "swatch", width: 28, height: 28, "aria-hidden": "true" });
  mark(canvas.getContext("2d"), look, 0, 0, 28, palette());
  return canvas;
}

export const stateOf = (look) => el("span", { class: "state" }, swatch(look), LOOKS[look]);
export const nodeLink = (name) => el("a", { href: `#/node/${encodeURIComponent(name)}` }, name);
export const jobLink = (id) => el("a", { href: `#/job/${id}` }, String(id));

export function nodesOf(names, most = 12) {
  if (!names.length) return "";
  if (names.length > most) return fold(names);
  return names.flatMap((name, at) => (at ? [", ", nodeLink(name)] : [nodeLink(name)]));
}

export function table(caption, columns, rows) {
  const head = columns.map(([title, kind]) => el("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) => el("tr", {}, cells.map((cell, at) => el("td", { class: columns[at][1] }, cell))));
  return el("div", { class: "scroll" }, el("table", {}, el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

export const facts = (pairs) => el("dl", {}, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
  .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
