// Two to four runs side by side: their turntables and their 3D views move together.
function comparison(target, ids) {
  const known = [...new Set(ids)].map((id) => runs.get(id)).filter(Boolean).slice(0, MOST_COMPARED);
  if (known.length < 2) {
    target.append(element("section", {}, element("h1", { textContent: "Compare" }),
      element("p", {}, `Choose two to ${MOST_COMPARED} runs in the `, element("a", { href: "#gallery", textContent: "gallery" }),
        ": the box in the corner of each picture.")));
    return null;
  }
  chosen.clear();
  for (const run of known) chosen.add(run.id);
  const prompts = [...new Set(known.map(promptOf))];
  target.append(element("h1", { textContent: prompts.length === 1 ? `“${prompts[0]}”` : "Compare" }));
  const columns = element("div", { className: "compare" });
  columns.style.setProperty("--columns", known.length);
  const videos = [];
  const playing = [];
  const views = [];
  for (const run of known) {
    const figure = element("figure", {}, element("figcaption", {}, element("a", { href: `#run=${run.id}`, textContent: columnOf(run).method }),
      element("small", { textContent: `${columnOf(run).details}, seed ${run.seed}${prompts.length > 1 ? `: ${promptOf(run)}` : ""}` })));
    if (has(run.media, "f")) {
      const made = video(run.media, `${promptOf(run)}, by ${titleOf(run)}, turning`);
      videos.push(made);
      playing.push(run);
      figure.append(made);
    } else if (has(run.media, "p")) figure.append(picture(run.media, `${promptOf(run)}, by ${titleOf(run)}`));
    if (has(run.media, "s") || has(run.media, "m")) views.push({ run, figure });
    columns.append(figure);
  }
  target.append(columns);
  const open = [];
  if (videos.length) {
    const { together, controls } = player(videos);
    target.append(controls);
    together.load(playing.map((run) => address(run.media, "turntable.mp4")), !still, playing.map((run) => run.media.start ?? 0));
    current.player = together;
    open.push(() => together.close());
  }
  if (views.length) target.append(open3D(views, open));
  target.append(scoreTable(known));
  return () => open.forEach((close) => close());
}

function open3D(views, open) {
  const button = element("button", { type: "button", className: "primary", textContent: "Open the 3D views", id: "open-3d" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    const made = [];
    for (const { run, figure } of views) {
      let rig = {};
      try { ({ rig } = await content("runs", run.id)); } catch { /* the default cameras */ }
      const view = new View3D(run.media, rig, `${promptOf(run)}, by ${titleOf(run)}`);
      figure.append(view.box);
      made.push(view);
      open.push(() => view.close());
    }
    for (const view of made) {
      view.onMove = (moved) => { for (const other of made) if (other !== moved) other.follow(moved); };
    }
    current.views = made;
    for (const view of made) await view.open();
    button.remove();
  });
  return element("p", {}, button);
}

// Bold marks the best number of a row: of these runs only, which decides nothing about the methods.
function scoreTable(known) {
  const rows = data.quantities.map((quantity, i) => {
    const values = known.map((run) => run.scores[i]);
    const there = values.filter((value) => value !== null);
    const best = quantity.better === null || there.length < 2 ? null : Math[quantity.better ? "max" : "min"](...there);
    const shown = values.map((value) => number(value, quantity)); // what looks equal is equal
    const isDraw = new Set(there.map((value) => number(value, quantity))).size < 2;
    return [`${quantity.label} ${quantity.arrow}`.trim(), ...shown.map((text) => (best !== null && text === number(best, quantity) && !isDraw
      ? element("b", { textContent: text }) : text))];
  }).filter((row) => row.slice(1).some((cell) => cell !== "—"));
  return element("section", {}, element("h2", { textContent: "Numbers of these runs" }),
    plainTable(["", ...known.map((run) => `${columnOf(run).method}, seed ${run.seed}`)], rows),
    element("p", { className: "quiet", textContent: "Bold: the best of these runs. Single runs decide nothing about methods; the tables in the overview do." }));
}
