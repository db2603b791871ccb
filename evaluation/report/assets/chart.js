// Cost against quality: a point for each row of the table, the Pareto front as a staircase.
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted || 1;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = size * ([1, 2, 5, 10].find((k) => k * size >= raw) ?? 10);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return found;
}

function tradeoffChart({ title, qualities, costs, rows }) {
  const figure = element("figure", { className: "chart" });
  const choose = (label, options) => {
    const select = element("select", {}, ...options.map((o, i) => element("option", { value: i, textContent: o.label })));
    return [select, element("label", {}, `${label} `, select)];
  };
  const [quality, qualityLabel] = choose("Quality", qualities);
  const [cost, costLabel] = choose("Cost", costs);
  const drawing = element("div");
  const caption = element("figcaption");
  figure.append(element("div", { className: "controls" }, qualityLabel, costLabel), drawing, caption);

  const draw = () => {
    const [q, c] = [qualities[quality.value], costs[cost.value]];
    const points = rows.filter((row) => q.name in row.values && c.name in row.values)
      .map((row) => ({ name: row.name, x: row.values[c.name], y: row.values[q.name], own: row.own.includes(q.name) }));
    const sign = q.better === false ? -1 : 1;
    const beats = (a, b) => a.x <= b.x && sign * a.y >= sign * b.y && (a.x < b.x || sign * a.y > sign * b.y);
    for (const point of points) point.front = !point.own && !points.some((other) => !other.own && beats(other, point));
    drawing.replaceChildren(points.length ? plot(points, q, c) : "No row has complete numbers.");
    const better = q.better === null ? "" : q.better ? "Higher is better." : "Lower is better.";
    caption.textContent = `${title}: mean ${q.label} against ${c.label} a run. ${better} The line joins the rows that no `
      + `other beats in both. ${q.label}: ${q.note}.`
      + (points.some((p) => p.own) ? ` Not compared, because their method maximises this number: ${points.filter((p) => p.own).map((p) => p.name).join(", ")}.` : "");
  };
  quality.addEventListener("change", draw);
  cost.addEventListener("change", draw);
  draw();
  return figure;
}

function plot(points, q, c) {
  const [width, height, left, right, top, bottom] = [720, 380, 62, 130, 18, 46];
  const span = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low || Math.abs(high) || 1) * 0.1;
    return [low - room, high + room];
  };
  const [x0, x1] = [0, Math.max(...points.map((p) => p.x)) * 1.05 || 1];
  const [y0, y1] = span(points.map((p) => p.y));
  const px = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const py = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
  const short = (value) => Number(value.toPrecision(4)).toLocaleString("en");
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${q.label} against ${c.label}: ${points.map((p) => `${p.name} ${short(p.y)} at ${short(p.x)}`).join("; ")}` });
  for (const y of ticks(y0, y1)) {
    made.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }),
      svg("text", { class: "tick", x: left - 8, y: py(y) + 4, "text-anchor": "end" }, short(y)));
  }
  for (const x of ticks(x0, x1)) {
    made.append(svg("text", { class: "tick", x: px(x), y: height - bottom + 18, "text-anchor": "middle" }, short(x)));
  }
  made.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { class: "label", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, `${c.label} a run`),
    svg("text", { class: "label", x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle",
      transform: `rotate(-90 14 ${(top + height - bottom) / 2})` }, `${q.label} ${q.arrow}`));
  const front = points.filter((p) => p.front).sort((a, b) => a.x - b.x);
  if (front.length) {
    let path = `M${px(front[0].x)} ${py(front[0].y)}`;
    for (const p of front.slice(1)) path += `H${px(p.x)}V${py(p.y)}`;
    made.append(svg("path", { class: "front", d: `${path}H${width - right}` }));
  }
  const taken = []; // boxes of the names: left, right, baseline
  for (const p of [...points].sort((a, b) => b.y - a.y)) {
    const [x, y] = [px(p.x), py(p.y)];
    const [from, to] = [x + 10, x + 12 + p.name.length * 6.6];
    const isFree = (at) => at < height - bottom && !taken.some(([l, r, b]) => l < to && r > from && Math.abs(b - at) < 13)
      && !points.some((o) => px(o.x) + 6 > from && px(o.x) - 6 < to && Math.abs(py(o.y) - at + 4) < 9);
    const at = [0, 12, -12, 24, -24, 36, 48, 60, 72].map((k) => y + 4 + k).find(isFree) ?? y + 4;
    taken.push([from, to, at]);
    if (Math.abs(at - y - 4) > 13) made.append(svg("line", { class: "grid", x1: x + 4, x2: x + 10, y1: y, y2: at - 4 }));
    made.append(svg("circle", { class: p.front ? "point on" : "point", cx: x, cy: y, r: 5 },
      svg("title", {}, `${p.name}: ${q.label} ${short(p.y)}, ${c.label} ${short(p.x)}`)),
      svg("text", { class: p.front ? "name on" : "name", x: x + 10, y: at }, p.name));
  }
  return made;
}
