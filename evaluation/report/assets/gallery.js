// Prompts × methods, or all runs in the order of one number. Only the rows on the screen exist in the page.
const CARD = { width: 158, gap: 10, text: 28, texts: 44 };
const chosen = new Set(); // runs to compare
const MOST_COMPARED = 4;
const galleryPlace = { hash: "#gallery", left: "", top: 0 }; // where it was left, to come back to

function galleryState(parameters) {
  const panel = Math.trunc(Number(parameters.get("panel"))) || 0;
  const sort = parameters.get("sort") ?? "";
  return {
    q: parameters.get("q") ?? "",
    panel: Math.max(0, Math.min(panel, data.panels.length - 1)),
    as: parameters.get("as"), // representation
    off: new Set((parameters.get("off") ?? "").split(",").filter(Boolean).map(Number)),
    seed: parameters.get("seed") ?? "",
    sort: data.quantities.some(({ name }) => name === sort) ? sort : "", // of another report: not ours
    play: false,
  };
}

function keepState(state) {
  const kept = new URLSearchParams();
  if (state.q) kept.set("q", state.q);
  if (state.panel) kept.set("panel", state.panel);
  if (state.as !== null) kept.set("as", state.as);
  if (state.off.size) kept.set("off", [...state.off].join(","));
  if (state.seed !== "") kept.set("seed", state.seed);
  if (state.sort) kept.set("sort", state.sort);
  const text = kept.toString();
  galleryPlace.hash = text ? `#gallery&${text}` : "#gallery";
  history.replaceState(null, "", galleryPlace.hash);
}

function matching(state) {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const representation = representationOf(state);
  return data.runs.filter((run) => run.panel === state.panel && !state.off.has(run.column)
    && (!representation || columnOf(run).representation === representation)
    && (state.seed === "" || String(run.seed) === state.seed)
    && words.every((word) => promptOf(run).toLowerCase().includes(word)));
}

// The representation that is shown: if there are several, at first the one with most runs; "" is all.
function representationOf(state) {
  if (state.as !== null) return state.as;
  const counts = new Map();
  for (const run of data.runs) {
    if (run.panel === state.panel) counts.set(columnOf(run).representation, (counts.get(columnOf(run).representation) ?? 0) + 1);
  }
  const [[most] = [""]] = [...counts].sort((a, b) => b[1] - a[1]);
  return counts.size > 1 ? most : "";
}

function gallery(target, parameters) {
  const state = galleryState(parameters);
  if (!data.panels.length) {
    target.append(element("p", { className: "notice", textContent: "There are no finished runs yet." }));
    return null;
  }
  const count = element("output", { className: "quiet" });
  const grid = new Grid(state);
  const bar = element("form", { className: "filters", role: "search" });
  const draw = () => {
    keepState(state);
    const found = matching(state);
    count.textContent = plural(found.length, "run");
    $("announce").textContent = count.textContent;
    grid.show(found);
  };
  const rebuild = () => { bar.replaceChildren(...filters(state, draw, rebuild, grid), count); draw(); };
  bar.addEventListener("submit", (event) => event.preventDefault());
  target.classList.add("full");
  target.append(element("h1", { className: "unseen", textContent: "Gallery" }), bar, grid.box);
  rebuild();
  if (galleryPlace.left === galleryPlace.hash) grid.box.scrollTop = galleryPlace.top;
  return () => {
    Object.assign(galleryPlace, { left: galleryPlace.hash, top: grid.box.scrollTop });
    grid.close();
  };
}

function filters(state, draw, rebuild, grid) {
  const panel = data.panels[state.panel];
  const parts = [];
  if (data.panels.length > 1) {
    const sets = element("select", {}, ...data.panels.map((p, i) => element("option", { value: i, textContent: p.title, selected: i === state.panel })));
    sets.addEventListener("change", () => {
      Object.assign(state, { panel: Number(sets.value), as: null, off: new Set(), seed: "", sort: "" });
      rebuild();
    });
    parts.push(element("label", {}, "Runs ", sets));
  }
  const text = element("input", { type: "search", value: state.q, placeholder: "words of the prompt", id: "find" });
  text.addEventListener("input", () => { state.q = text.value; draw(); });
  parts.push(element("label", {}, "Prompt ", text));
  const here = data.runs.filter((run) => run.panel === state.panel);
  const kinds = [...new Set(panel.columns.map((column) => column.representation))];
  if (kinds.length > 1) {
    const kind = element("select", { id: "representation" }, element("option", { value: "", textContent: "all" }),
      ...kinds.map((k) => element("option", { value: k, textContent: k })));
    kind.value = representationOf(state);
    kind.addEventListener("change", () => { state.as = kind.value; rebuild(); });
    parts.push(element("label", {}, "Representation ", kind));
  }
  const seeds = [...new Set(here.map((run) => run.seed))].sort((a, b) => a - b);
  if (seeds.length > 1) {
    const seed = element("select", {}, element("option", { value: "", textContent: "all" }),
      ...seeds.map((s) => element("option", { value: s, textContent: s, selected: String(s) === state.seed })));
    seed.addEventListener("change", () => { state.seed = seed.value; draw(); });
    parts.push(element("label", {}, "Seed ", seed));
  }
  const numbers = data.quantities.map((quantity, i) => ({ quantity, i }))
    .filter(({ i }) => here.some((run) => run.scores[i] !== null));
  const sort = element("select", { id: "sort" }, element("option", { value: "", textContent: "prompts × methods" }),
    ...numbers.map(({ quantity }) => element("option", { value: quantity.name, textContent: `${quantity.label} ${quantity.arrow}`.trim(),
      title: quantity.note, selected: quantity.name === state.sort })));
  sort.addEventListener("change", () => { state.sort = sort.value; draw(); });
  parts.push(element("label", {}, "Order ", sort));
  const meaning = element("small", { className: "meaning" });
  const explain = () => {
    const chosenNumber = data.quantities.find((quantity) => quantity.name === state.sort);
    meaning.textContent = chosenNumber ? `${chosenNumber.label}: ${chosenNumber.note}` : "";
  };
  sort.addEventListener("change", explain);
  explain();
  const play = element("button", { type: "button", textContent: "Play all", id: "play-all" });
  play.setAttribute("aria-pressed", String(state.play));
  play.addEventListener("click", () => {
    state.play = !state.play;
    play.setAttribute("aria-pressed", String(state.play));
    play.textContent = state.play ? "Stop all" : "Play all";
    grid.playAll();
  });
  parts.push(play);
  const methods = element("fieldset", { className: "chips" }, element("legend", { className: "unseen", textContent: "Methods" }));
  const representation = representationOf(state);
  panel.columns.forEach((column, i) => {
    if (representation && column.representation !== representation) return;
    const box = element("input", { type: "checkbox", checked: !state.off.has(i) });
    box.addEventListener("change", () => {
      if (box.checked) state.off.delete(i);
      else state.off.add(i);
      draw();
    });
    methods.append(element("label", { title: column.details }, box, element("span", {}, columnName(panel, i, representation))));
  });
  parts.push(methods, meaning);
  return parts;
}

// The method, with its settings if several columns have that method.
function columnName(panel, i, representation = "") {
  const { method, details } = panel.columns[i];
  const several = panel.columns.filter((column) => column.method === method
    && (!representation || column.representation === representation)).length > 1;
  return several ? `${method} (${details})` : method;
}

class Grid {
  constructor(state) {
    this.state = state;
    this.rows = new Map(); // index -> { node, tables }
    this.body = element("div", { className: "rows" });
    this.head = element("div", { className: "row heads" });
    this.box = element("div", { className: "grid", tabIndex: 0, role: "region" }, this.head, this.body);
    this.box.setAttribute("aria-label", "Runs");
    this.box.addEventListener("scroll", () => this.fill(), { passive: true });
    this.watch = new ResizeObserver(() => this.layout());
    this.watch.observe(this.box);
  }

  show(found) {
    this.found = found;
    this.layout(true);
  }

  layout(again = false) {
    if (!this.found) return;
    const { state } = this;
    const room = Math.max(200, this.box.clientWidth);
    const width = room < 560 ? Math.min(132, Math.floor((room - 3 * CARD.gap) / 2)) : CARD.width;
    const perRow = Math.max(1, Math.floor((room - CARD.gap) / (width + CARD.gap)));
    const key = `${width} ${state.sort ? perRow : 0}`;
    if (!again && key === this.key) {
      this.fill();
      return;
    }
    this.key = key;
    this.width = width;
    this.height = width + (state.sort ? CARD.texts : CARD.text) + CARD.gap;
    this.lines = state.sort ? this.ranked(perRow) : this.matrix();
    this.box.style.setProperty("--card", `${width}px`);
    this.body.style.height = `${this.lines.length * this.height}px`;
    for (const index of [...this.rows.keys()]) this.drop(index);
    this.fill();
  }

  // Rows of cards in the order of one number, best first.
  ranked(perRow) {
    const i = data.quantities.findIndex((quantity) => quantity.name === this.state.sort);
    const sign = data.quantities[i].better === false || data.quantities[i].better === null ? 1 : -1;
    const value = (run) => ((run.own || []).includes(i) ? null : run.scores[i]); // last where the method maximises it
    const order = this.found.filter((run) => value(run) !== null).sort((a, b) => sign * (value(a) - value(b)))
      .concat(this.found.filter((run) => value(run) === null));
    this.head.hidden = true;
    const lines = [];
    for (let at = 0; at < order.length; at += perRow) lines.push({ cells: order.slice(at, at + perRow) });
    return lines;
  }

  // A row for each prompt and seed, a column for each method.
  matrix() {
    const panel = data.panels[this.state.panel];
    const columns = panel.columns.map((_, i) => i).filter((i) => this.found.some((run) => run.column === i));
    const byKey = new Map();
    for (const run of this.found) {
      const key = `${run.place} ${run.prompt} ${run.seed}`;
      if (!byKey.has(key)) byKey.set(key, { place: run.place, prompt: run.prompt, seed: run.seed, runs: new Map() });
      byKey.get(key).runs.set(run.column, run);
    }
    const order = [...byKey.values()].sort((a, b) => a.place - b.place || a.prompt - b.prompt || a.seed - b.seed);
    const severalSeeds = new Set(this.found.map((run) => run.seed)).size > 1;
    const withTruth = Object.keys(panel.truth).length > 0;
    this.head.hidden = false;
    this.head.replaceChildren(element("span", { className: "label" }),
      ...(withTruth ? [element("span", { textContent: "Truth" })] : []),
      ...columns.map((i) => element("span", { title: panel.columns[i].details }, element("b", { textContent: panel.columns[i].method }),
        element("small", { textContent: panel.columns[i].details }))));
    return order.map((line) => ({
      label: data.prompts[line.prompt] + (severalSeeds ? `, seed ${line.seed}` : ""),
      truth: withTruth ? panel.truth[line.prompt] ?? null : undefined,
      prompt: line.prompt,
      cells: columns.map((i) => line.runs.get(i) ?? null),
    }));
  }

  fill() {
    if (!this.lines) return;
    const top = this.box.scrollTop;
    const first = Math.max(0, Math.floor(top / this.height) - 1);
    const last = Math.min(this.lines.length - 1, Math.ceil((top + this.box.clientHeight) / this.height));
    for (const index of [...this.rows.keys()]) if (index < first || index > last) this.drop(index);
    for (let index = first; index <= last; index += 1) if (!this.rows.has(index)) this.draw(index);
  }

  draw(index) {
    const line = this.lines[index];
    const tables = [];
    const node = element("div", { className: "row" });
    node.style.transform = `translateY(${index * this.height}px)`;
    if (line.label !== undefined) node.append(element("span", { className: "label", title: line.label }, element("span", { textContent: line.label })));
    if (line.truth !== undefined) node.append(this.truth(line, tables));
    for (const run of line.cells) node.append(run ? this.card(run, tables) : element("span", { className: "card empty", textContent: "not made" }));
    this.rows.set(index, { node, tables });
    this.body.append(node);
    if (this.state.play) for (const table of tables) table.play(true);
  }

  drop(index) {
    const { node, tables } = this.rows.get(index);
    for (const table of tables) table.play(false);
    node.remove();
    this.rows.delete(index);
  }

  truth(line, tables) {
    if (!line.truth) return element("span", { className: "card empty" });
    const table = turntable(line.truth, `The true object: ${data.prompts[line.prompt]}`);
    tables.push(table);
    const card = element("span", { className: "card" }, table.box);
    hoverPlays(card, table, () => this.state.play);
    return card;
  }

  card(run, tables) {
    const { sort } = this.state;
    const table = turntable(run.media, `${promptOf(run)}, by ${titleOf(run)}`);
    tables.push(table);
    const link = element("a", { href: `#run=${run.id}`, title: `${promptOf(run)}: ${titleOf(run)}` }, table.box);
    const text = element("span", { className: "about" });
    if (sort) {
      const i = data.quantities.findIndex((quantity) => quantity.name === sort);
      text.append(element("b", { textContent: `${data.quantities[i].label} ${number(run.scores[i], data.quantities[i])}` }),
        element("small", { textContent: `${columnOf(run).method} · ${promptOf(run)}` }));
      if (truthOf(run) && has(truthOf(run), "p")) {
        link.append(element("span", { className: "inset" }, picture(truthOf(run), "The true object")));
      }
    } else {
      text.append(element("small", { textContent: this.numbers(run) }));
    }
    const box = element("input", { type: "checkbox", checked: chosen.has(run.id) });
    box.addEventListener("change", () => { choose(run.id, box.checked); box.checked = chosen.has(run.id); });
    const compare = element("label", { className: "pick", title: "Choose for comparison" }, box,
      element("span", { className: "unseen", textContent: `Compare ${titleOf(run)}: ${promptOf(run)}` }));
    const card = element("span", { className: "card" }, link, text, compare);
    hoverPlays(card, table, () => this.state.play);
    return card;
  }

  // The first numbers that this run has.
  numbers(run) {
    return data.quantities.map((quantity, i) => [quantity, run.scores[i]]).filter(([quantity, value]) => value !== null && quantity.headline).slice(0, 2)
      .map(([quantity, value]) => `${quantity.label} ${number(value, quantity)}`).join(" · ");
  }

  playAll() {
    for (const { tables } of this.rows.values()) for (const table of tables) table.play(this.state.play);
  }

  close() {
    this.watch.disconnect();
    for (const index of [...this.rows.keys()]) this.drop(index);
  }
}

function choose(id, wanted) {
  const full = wanted && chosen.size >= MOST_COMPARED;
  if (full) $("announce").textContent = `At most ${MOST_COMPARED} runs can be compared.`;
  else if (wanted) chosen.add(id);
  else chosen.delete(id);
  drawTray(full ? $("announce").textContent : "");
}

function drawTray(refusal = "") {
  const tray = $("tray");
  tray.hidden = !chosen.size || location.hash.startsWith("#compare=");
  if (tray.hidden) return;
  const open = element("a", { className: "button primary", textContent: `Compare ${chosen.size}` });
  if (chosen.size > 1) open.href = `#compare=${[...chosen].join(",")}`;
  else open.setAttribute("aria-disabled", "true");
  const clear = element("button", { type: "button", textContent: "Clear" });
  clear.addEventListener("click", () => {
    chosen.clear();
    drawTray();
    document.dispatchEvent(new Event("chosen"));
    for (const box of document.querySelectorAll(".pick input")) box.checked = false;
  });
  tray.replaceChildren(...[...chosen].map((id) => {
    const run = runs.get(id);
    return has(run.media, "p") ? picture(run.media, titleOf(run)) : element("span", { textContent: titleOf(run) });
  }), open, clear, ...(refusal ? [element("small", { textContent: refusal })] : []));
}
