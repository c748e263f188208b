// Two charts: a value over steps, and nodes in service over time against what was promised.
import { clock, el, lasting, many, moment, svg } from "./words.js";

const TALL = 200, LEFT = 46, RIGHT = 10, TOP = 12, LOW = 24;
export const WIDE = 1200; // as wide as a card, so that letters keep their size

const digits = (value) => (Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : Number(value.toPrecision(4)).toLocaleString("en"));

// Round numbers within a range, some three or four.
export function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low || 1) / 3)), by = [1, 2, 5, 10].find((one) => (high - low) / (step * one) <= 4) * step;
  const found = [];
  for (let at = Math.ceil(low / by) * by; at <= high + by / 1000; at += by) found.push(Number(at.toPrecision(12)));
  return found;
}

export function valueChart(name, points, wide) {
  const steps = points.map(([step]) => step), values = points.map(([, value]) => value);
  const from = Math.min(...steps), to = Math.max(...steps, from + 1);
  const least = Math.min(...values), most = Math.max(...values), room = (most - least || Math.abs(most) || 1) * 0.06;
  const low = least - room, high = most + room;
  const x = (step) => LEFT + ((step - from) / (to - from)) * (wide - LEFT - RIGHT), y = (value) => TALL - LOW - ((value - low) / (high - low)) * (TALL - LOW - TOP);
  const grid = ticks(low, high).flatMap((value) => [svg("path", { class: "axis", d: `M${LEFT} ${y(value).toFixed(1)}H${wide - RIGHT}` }),
    svg("text", { x: LEFT - 8, y: (y(value) + 4).toFixed(1), "text-anchor": "end" }, digits(value))]);
  // Where steps go back, a checkpoint was gone on from: the line is lifted there.
  const path = points.map(([step, value], at) => `${at && step > points[at - 1][0] ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const back = points.filter(([step], at) => at && step < points[at - 1][0]).map(([step]) => svg("path", { class: "restart", d: `M${x(step).toFixed(1)} ${TOP}V${TALL - LOW}` }));
  const last = values.at(-1);
  return svg("svg", { class: "chart", viewBox: `0 0 ${wide} ${TALL}`, role: "img", "aria-label": `${name} from ${digits(values[0])} to ${digits(last)}, steps ${from} to ${to}${back.length ? `, gone back ${many(back.length, "time")}` : ""}` },
    grid, back, svg("path", { class: "curve", d: path }), svg("text", { x: LEFT, y: TALL - 5 }, from.toLocaleString("en")),
    svg("text", { x: wide - RIGHT, y: TALL - 5, "text-anchor": "end" }, `step ${to.toLocaleString("en")}: ${digits(last)}`));
}

export function capacityChart(line, at) {
  const { points, promised, buffer, size } = line, until = Math.max(at, points.at(-1)[0] + 1), from = Math.min(points[0][0], until - 60);
  const counts = points.map(([, count]) => count), least = Math.min(...counts, promised ?? size);
  const low = Math.max(0, Math.floor(least - (size - least) * 0.35 - 1)), high = size;
  const wide = WIDE, tall = 210;
  const x = (when) => LEFT + ((when - from) / (until - from)) * (wide - LEFT - RIGHT), y = (count) => tall - LOW - ((count - low) / (high - low || 1)) * (tall - LOW - TOP);
  const grid = ticks(low, high).filter(Number.isInteger).flatMap((count) => [svg("path", { class: "axis", d: `M${LEFT} ${y(count).toFixed(1)}H${wide - RIGHT}` }),
    svg("text", { x: LEFT - 8, y: (y(count) + 4).toFixed(1), "text-anchor": "end" }, count)]);
  let path = `M${x(points[0][0]).toFixed(1)} ${y(points[0][1]).toFixed(1)}`;
  for (const [when, count] of points.slice(1)) path += `H${x(when).toFixed(1)}V${y(count).toFixed(1)}`;
  path += `H${x(until).toFixed(1)}`;
  const area = `${path}V${tall - LOW}H${x(points[0][0]).toFixed(1)}Z`;
  const promise = promised === null ? [] : [
    buffer ? svg("rect", { class: "buffer", x: LEFT, y: y(promised + buffer).toFixed(1), width: wide - LEFT - RIGHT, height: (y(promised) - y(promised + buffer)).toFixed(1) }) : null,
    svg("path", { class: "promise", d: `M${LEFT} ${y(promised).toFixed(1)}H${wide - RIGHT}` }),
    svg("text", { class: "promised", x: wide - RIGHT - 4, y: (y(promised) + 15).toFixed(1), "text-anchor": "end" }, `guaranteed: ${promised}`)];
  const lowest = Math.min(...counts);
  const words = promised === null ? "nothing is promised of it" : `guaranteed are ${promised}${buffer ? `, and ${buffer} are kept for failures` : ""}`;
  return el("div", {}, svg("svg", { class: "chart", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `${line.group}: ${line.now} of ${size} nodes in service, at the lowest ${lowest} in ${lasting(until - from)}; ${words}` },
    grid, svg("path", { class: "area", d: area }), promise, svg("path", { class: "curve", d: path }),
    svg("text", { x: LEFT, y: tall - 5 }, until - from > 43200 ? moment(from) : clock(from)), svg("text", { x: wide - RIGHT, y: tall - 5, "text-anchor": "end" }, clock(until))));
}
