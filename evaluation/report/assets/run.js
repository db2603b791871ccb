// A run's own page.
const GLOSS = {
  grad_rms: "Gradient on the latents, root mean square", regularisation: "Regularisation loss", lora_loss: "LoRA loss",
  n_primitives: "Primitives", t: "Timestep, mean and range over the views of a step", loss: "Loss", steps_per_s: "Steps a second",
};
const PARTS = { load: "Loading", init: "Init", distill: "Distilling", render: "Rendering" };

function runPage(target, id) {
  const run = runs.get(id);
  if (!run) {
    target.append(element("h1", { textContent: "No such run" }),
      element("p", {}, "This report has no run with that address. ", element("a", { href: "#gallery", textContent: "All runs" })));
    return null;
  }
  const open = [];
  const same = data.runs.filter((other) => other.panel === run.panel && other.prompt === run.prompt && other.seed === run.seed);
  target.append(element("nav", { className: "crumbs", ariaLabel: "Same prompt" }, element("a", { href: galleryPlace.hash, textContent: "Gallery" }),
    ...same.map((other) => {
      const link = element("a", { href: `#run=${other.id}`, textContent: columnName(panelOf(other), other.column) });
      if (other === run) link.setAttribute("aria-current", "page");
      return link;
    })));
  const pick = element("button", { type: "button" });
  const drawPick = () => { pick.textContent = chosen.has(id) ? "Do not compare" : "Compare"; };
  pick.addEventListener("click", () => { choose(id, !chosen.has(id)); drawPick(); });
  drawPick();
  document.addEventListener("chosen", drawPick);
  open.push(() => document.removeEventListener("chosen", drawPick));
  target.append(element("header", { className: "runhead" },
    element("div", {}, element("h1", { textContent: `“${promptOf(run)}”` }), element("p", { className: "quiet", textContent: titleOf(run) })), pick));
  target.append(scoreList(run), meanings(data.quantities.filter((_, i) => run.scores[i] !== null)));
  const stage = element("div", { className: "stage" });
  target.append(stage);
  const rest = element("div");
  target.append(rest);
  open.push(...turntables(stage, run));
  const place = viewPlace(stage, run, open);
  content("runs", id).then((more) => {
    place.rig = more.rig;
    if (!target.isConnected) return;
    rest.append(overTheRun(run, more.over ?? {}), viewStrip(run, more.views), curvesSection(more, open), secondsSection(more), answersSection(more.answers),
      configSection(run, more));
  }).catch((error) => rest.append(element("p", { className: "error", textContent: `${error.message}: copy the whole folder.` })));
  return () => open.forEach((close) => close());
}

function scoreList(run) {
  const list = element("dl", { className: "scores" });
  data.quantities.forEach((quantity, i) => {
    if (run.scores[i] === null) return;
    list.append(element("div", { title: quantity.note }, element("dt", { textContent: `${quantity.label} ${quantity.arrow}`.trim() }),
      element("dd", { textContent: number(run.scores[i], quantity) })));
  });
  return list;
}

function turntables(stage, run) {
  const truth = truthOf(run);
  const shown = [[run.media, "Turntable", `${promptOf(run)}, by ${titleOf(run)}, turning`]];
  if (has(truth, "f")) shown.push([truth, "The true object", `The true object, turning: ${promptOf(run)}`]);
  if (!has(run.media, "f")) {
    const still = has(run.media, "p") ? picture(run.media, promptOf(run)) : element("span", { className: "nothing", textContent: "The pictures do not travel with this report." });
    stage.append(element("figure", {}, still, element("figcaption", { textContent: "Picture" })));
    return [];
  }
  const videos = shown.map(([media, , alt]) => video(media, alt));
  const { together, controls } = player(videos);
  shown.forEach(([, caption], i) => stage.append(element("figure", {}, videos[i], element("figcaption", { textContent: caption }))));
  stage.append(controls);
  together.load(shown.map(([media]) => address(media, "turntable.mp4")), !still, shown.map(([media]) => media.start ?? 0));
  current.player = together;
  return [() => together.close()];
}

function viewPlace(stage, run, open) {
  const place = { rig: {} };
  if (!has(run.media, "s") && !has(run.media, "m")) return place;
  const button = element("button", { type: "button", className: "primary", textContent: "Open the 3D view", id: "open-3d" });
  const cover = element("div", { className: "cover" }, has(run.media, "p") ? picture(run.media, "") : "", button);
  const figure = element("figure", {}, cover, element("figcaption", { textContent: has(run.media, "s") ? "3D view, Gaussian splats" : "3D view, mesh" }));
  button.addEventListener("click", () => {
    const view = new View3D(run.media, place.rig, promptOf(run));
    cover.replaceWith(view.box);
    open.push(() => view.close());
    current.view = view;
    view.open();
  });
  stage.insertBefore(figure, stage.querySelector(".player"));
  return place;
}

// The asset while it was made (`renders_at`): a large picture that a slider moves, and all of them with their scores.
function overTheRun(run, numbers) {
  const { media } = run;
  if (!has(media, "o")) return element("section");
  const steps = media.over;
  const names = steps.map((step) => `${step.toLocaleString("en")} steps`);
  const alt = `${promptOf(run)} while it was made, from two sides: after ${steps.join(", ")} steps`;
  const large = element("div", { className: "moment" }, ...Array.from({ length: media.sides }, (_, side) => {
    const box = element("div", {}, picture(media, "", "over.webp"));
    box.style.setProperty("--side", side);
    return box;
  }));
  const slider = element("input", { type: "range", min: 0, max: steps.length - 1, step: 1, value: steps.length - 1, id: "moment" });
  slider.setAttribute("aria-label", "Steps");
  const said = element("output");
  const strip = element("div", { className: "strip over" });
  strip.style.setProperty("--views", steps.length);
  strip.style.setProperty("--wide", `${steps.length * 92}px`);
  large.style.setProperty("--views", steps.length);
  large.style.setProperty("--sides", media.sides);
  const heads = steps.map((step, i) => {
    const head = element("button", { type: "button", textContent: step.toLocaleString("en") });
    head.addEventListener("click", () => { slider.value = i; show(); });
    return head;
  });
  const show = () => {
    const i = Number(slider.value);
    large.style.setProperty("--at", i);
    slider.setAttribute("aria-valuetext", names[i]);
    said.textContent = [names[i], ...Object.entries(numbers).filter(([, values]) => values[i] !== null && values[i] !== undefined)
      .map(([label, values]) => `${label} ${Number(values[i].toPrecision(3))}`)].join(", ");
    heads.forEach((head, j) => head.setAttribute("aria-pressed", i === j));
  };
  slider.addEventListener("input", show);
  strip.append(element("span", { className: "label", textContent: "Steps" }), ...heads,
    element("span", { className: "label", textContent: media.sides > 1 ? "Front and back" : "Picture" }),
    element("div", { className: "all" }, picture(media, alt, "over.webp")));
  for (const [label, values] of Object.entries(numbers)) strip.append(element("span", { className: "label", textContent: label }), ...barred(values));
  show();
  return element("section", {}, element("h2", { textContent: "Over the run" }), element("div", { className: "moments" }, large, element("div", { className: "player" }, slider, said)),
    element("div", { className: "table", tabIndex: 0 }, strip));
}

// A cell for each value, with a bar from the smallest to the largest.
function barred(values) {
  const known = values.filter((value) => value !== undefined && value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return values.map((value) => {
    if (value === undefined || value === null) return element("span", { className: "value", textContent: "" });
    const cell = element("span", { className: "value", textContent: Number(value.toPrecision(3)) });
    cell.style.setProperty("--height", high > low ? (value - low) / (high - low) : 0.5);
    return cell;
  });
}

// Pictures around the asset, and below each what the metrics say of that view.
function viewStrip(run, numbers) {
  const { media } = run;
  if (!has(media, "v")) return element("section");
  const views = media.views;
  const table = element("div", { className: "strip" });
  table.style.setProperty("--views", views.length);
  const row = (label, ...cells) => table.append(element("span", { className: "label", textContent: label }), ...cells);
  const image = (label, file, alt, from = media) => row(label, element("div", { className: "all" }, picture(from, alt, file)));
  image("Colour", "rgb.webp", `${promptOf(run)} from ${views.length} sides`);
  if (has(truthOf(run), "v")) image("Truth", "rgb.webp", `The true object from the same sides: ${promptOf(run)}`, truthOf(run));
  image("Normals", "normal.webp", "Normals in world space: red x, green y, blue z");
  if (has(media, "g")) {
    image("Depth", "depth.webp", media.depth ? `Depth from ${media.depth[0]} (bright) to ${media.depth[1]} (dark)` : "Depth");
    image("Alpha", "alpha.webp", "Coverage: white is solid");
  }
  for (const [label, values] of Object.entries(numbers)) {
    const cells = views.map((view) => values[view]);
    if (cells.some((value) => value !== undefined)) row(label, ...barred(cells));
  }
  const depth = media.depth ? ` Depth: ${media.depth[0]} is bright, ${media.depth[1]} dark (world units).` : "";
  return element("section", {}, element("h2", { textContent: "Around the asset" }),
    element("div", { className: "table", tabIndex: 0 }, table),
    element("p", { className: "quiet", textContent: `${views.length} of the views, evenly spaced, from the front.${depth} A bar shows where a number lies between the smallest and the largest of its row.` }));
}

function curvesSection(more, open) {
  const section = element("section", {}, element("h2", { textContent: "Curves" }));
  const { step, seconds, ...others } = more.curves;
  const isRange = (name) => ["t_min", "t_max"].includes(name) && "t" in others;
  const names = Object.keys(others).filter((name) => name !== "steps_per_s" && !isRange(name));
  if (!step || !names.length) {
    section.append(element("p", { className: "quiet", textContent: "No log of the steps." }));
    return section;
  }
  const places = element("div", { className: "curves" });
  section.append(places);
  const library = document.querySelector("link[data-uplot]") ?? element("link", { rel: "stylesheet", href: "library/uplot.css" });
  library.dataset.uplot = "";
  document.head.append(library);
  script("library/uplot.js").then(() => {
    const order = [...names].sort((a, b) => (a in GLOSS ? 0 : 1) - (b in GLOSS ? 0 : 1));
    for (const name of order) {
      const title = GLOSS[name] ?? name.replaceAll("_", " ");
      const known = others[name].filter((value) => value !== null);
      const box = element("figure", {}, element("figcaption", { textContent: title }));
      places.append(box);
      const colour = (property) => getComputedStyle(document.documentElement).getPropertyValue(property).trim();
      const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 48 };
      const short = (value) => Number(value.toPrecision(4));
      const written = { value: (_, value) => (value === null ? "--" : short(value)) };
      const ends = name === "t" && "t_min" in others && "t_max" in others;
      const range = { ...written, stroke: () => colour("--line"), width: 1, points: { show: false } };
      const chart = new uPlot({
        width: Math.max(240, box.clientWidth), height: 170, legend: { show: true, live: true }, cursor: { y: false },
        scales: { x: { time: false } },
        axes: [{ ...axis, size: 28 }, { ...axis, values: (_, all) => all.map(short) }],
        series: [{ label: "Step" }, ...(ends ? [{ ...range, label: "Largest" }, { ...range, label: "Smallest" }] : []),
          { ...written, label: ends ? "Mean" : "Value", stroke: () => colour("--accent"), width: 1.6, points: { show: known.length < 60, size: 4 } }],
        bands: ends ? [{ series: [1, 2], fill: () => colour("--tint") }] : [],
      }, [step, ...(ends ? [others.t_max, others.t_min] : []), others[name]], box);
      chart.root.setAttribute("role", "img");
      chart.root.setAttribute("aria-label", `${title} over ${step.length} logged steps: first ${known[0]}, last ${known.at(-1)}, from ${Math.min(...known)} to ${Math.max(...known)}`);
      const size = new ResizeObserver(() => { if (box.clientWidth) chart.setSize({ width: box.clientWidth, height: 170 }); });
      size.observe(box);
      const recolour = () => chart.redraw(false);
      addEventListener("resize", recolour);
      open.push(() => { size.disconnect(); removeEventListener("resize", recolour); chart.destroy(); });
    }
  }).catch((error) => places.append(element("p", { className: "error", textContent: error.message })));
  return section;
}

function secondsSection(more) {
  const spent = Object.entries(PARTS).map(([name, label]) => [label, more.seconds[name] ?? 0]);
  const all = spent.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
  const bar = element("div", { className: "bar", role: "img" }, ...spent.map(([label, seconds], i) => {
    const piece = element("span", { className: `piece p${i}`, title: `${label}: ${seconds.toFixed(2)} s` });
    piece.style.flexGrow = seconds / all;
    return piece;
  }));
  bar.setAttribute("aria-label", spent.map(([label, seconds]) => `${label} ${seconds.toFixed(1)} seconds`).join(", "));
  const legend = element("ul", { className: "legend" }, ...spent.map(([label, seconds], i) => element("li", {},
    element("span", { className: `piece p${i}` }), `${label} ${seconds.toFixed(2)} s (${Math.round((100 * seconds) / all)} %)`)));
  const names = { unet_fwd: "UNet items forward", unet_bwd: "UNet items backward", vae_enc_fwd: "VAE encodings", vae_enc_bwd: "VAE encodings, backward",
    vae_dec: "VAE decodings", tflop: "TFLOP of the prior, counted" };
  return element("section", {}, element("h2", { textContent: "Where the seconds went" }), bar, legend,
    definition(Object.entries(more.cost).map(([name, value]) => [names[name] ?? name, Number(value.toPrecision(5)).toLocaleString("en")])));
}

function answersSection(answers) {
  const section = element("section");
  if (!answers.length) return section;
  section.append(element("h2", { textContent: "What the judges said" }));
  for (const { judge, tournament, criteria, rows, texts, all } of answers) {
    const word = (counts) => {
      if (!counts) return "—";
      const [won, drawn, lost] = counts;
      if (won + drawn + lost === 1) return won ? "better" : lost ? "worse" : "equal";
      return [won ? `${won} × better` : "", drawn ? `${drawn} × equal` : "", lost ? `${lost} × worse` : ""].filter(Boolean).join(", ");
    };
    section.append(element("h3", { textContent: `${judge}, tournament ${tournament}` }),
      plainTable(["Against", ...criteria], rows.map(([other, cells]) => [other, ...cells.map(word)])));
    if (texts.length) section.append(element("p", { className: "quiet", textContent: `In words, ${texts.length} of ${all} shown:` }));
    for (const said of texts) section.append(quoted(said));
  }
  return section;
}

function quoted({ against, left, criteria, text, cut }) {
  const asked = criteria.length > 3 ? `${criteria.length} criteria` : criteria.join(", ");
  return element("figure", { className: "said" },
    element("figcaption", { textContent: `Against ${against}; this run is on the ${left ? "left" : "right"}. Asked about: ${asked}.` }),
    element("blockquote", { textContent: text }),
    cut ? element("p", { className: "quiet", textContent: `Cut: ${plural(cut, "more character")} in the judge's answers.jsonl.` }) : "");
}

function configSection(run, more) {
  const config = element("details", {}, element("summary", { textContent: `Configuration, ${plural(Object.keys(more.config).length, "value")}` }),
    plainTable(["Key", "Value"], Object.entries(more.config)));
  const versions = element("details", {}, element("summary", { textContent: "Versions" }), plainTable(["Package", "Version"], Object.entries(more.versions)));
  const section = element("section", {}, element("h2", { textContent: "Identity and configuration" }),
    definition([...Object.entries(more.identity), ...Object.entries(more.facts)].map(([k, v]) => [k.replaceAll("_", " "), v])), config, versions);
  if (more.diff) {
    section.append(element("details", { className: "diff" }, element("summary", { textContent: "Uncommitted changes of the code" }),
      element("pre", { textContent: more.diff, tabIndex: 0 })));
  }
  return section;
}
