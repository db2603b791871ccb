// What ran, tables, cost against quality; what is missing; how to cite and reproduce.
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function linked({ name, citation, links }) {
  const cell = element("span");
  if (!links.length) {
    cell.append(citation ?? "no citation");
    return cell;
  }
  links.forEach((link, i) => {
    if (i) cell.append("; ");
    cell.append(element("a", { href: link.url, textContent: link.title, rel: "noreferrer" }));
  });
  return cell;
}

function duration(hours) {
  if (hours < 1) return `${(hours * 60).toFixed(hours < 0.1 ? 1 : 0)} minutes`;
  return `${hours.toFixed(1)} hours`;
}

function summary() {
  const { facts } = data;
  const seeds = facts.seeds.length > 6 ? `${facts.seeds.length} seeds` : `seed${facts.seeds.length > 1 ? "s" : ""} ${facts.seeds.join(", ")}`;
  return [plural(data.about.method.length, "method"), plural(facts.prompts, "prompt"), plural(facts.runs, "finished run"),
    seeds, `${duration(facts.hours)} on ${facts.devices.map(([device]) => device).join(" and ") || "no device"}`];
}

function definition(pairs) {
  const list = element("dl", { className: "facts" });
  for (const [term, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(element("div", {}, element("dt", { textContent: term }),
      element("dd", {}, ...(Array.isArray(value) ? value : [value]).map((v) => (v instanceof Node ? v : String(v))))));
  }
  return list;
}

const counted = (pairs) => pairs.map(([name, count]) => `${name} (${count})`).join(", ");

// One run for each prompt, each from another method: a first look.
function firstLook() {
  const row = element("div", { className: "look" });
  const seen = new Set();
  const counts = new Map();
  for (const run of data.runs) if (!run.panel) counts.set(run.column, (counts.get(run.column) ?? 0) + 1);
  const columns = [...counts.keys()].filter((column) => counts.get(column) * 2 >= Math.max(...counts.values()));
  let next = 0;
  for (const run of data.runs) {
    if (run.panel || seen.has(run.prompt) || !has(run.media, "p") || seen.size >= 8) continue;
    const same = data.runs.filter((other) => !other.panel && other.prompt === run.prompt && has(other.media, "p"));
    const shown = same.find((other) => other.column === columns[next % columns.length]) ?? run;
    next += 1;
    seen.add(run.prompt);
    const table = turntable(shown.media, `${promptOf(shown)}, by ${titleOf(shown)}`);
    const link = element("a", { href: `#run=${shown.id}` }, table.box,
      element("span", { textContent: promptOf(shown) }), element("small", { textContent: columnOf(shown).method }));
    hoverPlays(link, table);
    row.append(link);
  }
  return row;
}

function overview(target) {
  const { facts } = data;
  target.append(element("section", { className: "hero" },
    element("h1", { textContent: data.title }),
    element("p", { className: "lead" }, ...summary().map((text) => element("span", { textContent: text }))),
    firstLook()));
  if (!data.runs.length) {
    target.append(element("p", { className: "notice", textContent: "There are no finished runs yet." }));
  }
  if (data.unfinished.length || data.problems.length) {
    const what = [data.unfinished.length ? plural(data.unfinished.length, "run") + " not finished" : "",
      data.problems.length ? plural(data.problems.length, "problem") : ""].filter(Boolean).join(", ");
    target.append(element("p", { className: "notice" }, `${what}: `, element("a", { href: "#missing", textContent: "the list" })));
  }
  target.append(tablesSection(), tradeoffSection(), partsSection(), element("section", {},
    element("h2", { textContent: "What ran" }),
    definition([
      ["Prompt sets", counted(facts.sets)],
      ["Seeds", facts.seeds.join(", ")],
      ["Devices", counted(facts.devices)],
      ["Compute", `${duration(facts.hours)}; the prior did ${facts.tflop.toLocaleString("en")} TFLOP, counted`],
      ["trace_bench", counted(facts.versions)],
      ["Commits", counted(facts.commits)],
      ["Runs finished", facts.from ? `${facts.from.slice(0, 16).replace("T", " ")} to ${facts.to.slice(0, 16).replace("T", " ")} UTC` : null],
      ["Report made", `${data.made.slice(0, 16).replace("T", " ")} UTC`],
    ]), promptsList()));
}

// All runs of a prompt, in the first set of runs that has it.
function linkOf(prompt, place) {
  const { panel = 0 } = data.runs.find((run) => run.prompt === place) ?? {};
  return `#gallery&${new URLSearchParams({ q: prompt, ...(panel ? { panel } : {}), as: "" })}`;
}

function promptsList() {
  const list = element("ol", { className: "prompts" }, ...data.prompts.map((prompt, place) => element("li", {},
    element("a", { href: linkOf(prompt, place), textContent: prompt }))));
  return element("details", { open: data.prompts.length <= 12 },
    element("summary", { textContent: plural(data.prompts.length, "prompt") }), list);
}

function partsSection() {
  const section = element("section", {}, element("h2", { textContent: "Methods and priors" }));
  section.append(plainTable(["Method", "Runs", "Paper"], data.about.method.map((part) => [part.name, part.runs, linked(part)])));
  section.append(plainTable(["Representation", "Runs", "Paper"],
    data.about.representation.map((part) => [part.name, part.runs, linked(part)])));
  const inits = data.about.init.filter((part) => part.citation);
  if (inits.length) section.append(plainTable(["Init", "Runs", "Paper"], inits.map((part) => [part.name, part.runs, linked(part)])));
  section.append(plainTable(["Prior", "Paper", "Repository", "Revision", "SHA-256 of the weights used", "Model that carries the LoRA"],
    data.priors.map((prior) => [prior.name, linked(prior), prior.repo ?? "—", prior.revision ?? "—",
      element("code", { textContent: prior.sha256?.slice(0, 16) ?? "—", title: prior.sha256 ?? "" }),
      prior.adapter ? `${prior.adapter} ${prior.adapter_revision ?? ""}`.trim() : "no LoRA"])));
  return section;
}

function tablesSection() {
  const section = element("section", {}, element("h2", { textContent: "Results" }), element("p", { className: "quiet" },
    element("b", { textContent: "Bold" }), ": decidedly better than every other row. ", element("i", { textContent: "Italic" }),
    ": the best number, not decided. A heading sorts. Decided means: a paired test over the prompts, two-sided, with Holm's correction for all pairs "
    + "of rows in the column, gives p ≤ .05. Fewer than six prompts decide nothing."));
  const own = data.tables.filter((table) => !table.paper);
  const paper = data.tables.filter((table) => table.paper);
  for (const table of own) section.append(oneTable(table));
  if (paper.length) {
    const isToy = data.priors.every((prior) => prior.name === "tiny");
    section.append(element("details", { open: !isToy }, element("summary", { textContent: "Beside the paper: its printed numbers, and ours where they exist" }),
      ...paper.map(oneTable)));
  }
  if (!data.tables.length) section.append(element("p", { textContent: "No tables yet." }));
  section.append(meanings([...data.quantities, ...data.columns]));
  return section;
}

// In words, not only as a tooltip: a phone shows none.
function meanings(quantities) {
  if (!quantities.length) return "";
  const better = ({ better }) => (better === null ? "" : better ? " Higher is better." : " Lower is better.");
  return element("details", { className: "meanings" }, element("summary", { textContent: "What the numbers mean" }),
    element("dl", { className: "facts wide" }, ...quantities.map((quantity) => element("div", {}, element("dt", { textContent: quantity.label }),
      element("dd", { textContent: `${quantity.note.replace(/\.$/, "")}.${better(quantity)}` })))));
}

function oneTable(table) {
  const notes = element("details", { className: "notes" }, element("summary", { textContent: "Notes" }),
    element("ul", {}, ...table.notes.map((note) => element("li", { textContent: note }))));
  if (!table.long) {
    const box = element("div", { className: "result" }, sortableTable(table));
    if (table.notes.length) box.append(notes);
    return box;
  }
  const closed = element("details", { className: "result" },
    element("summary", { textContent: `${table.caption || table.name} ${plural(table.rows, "row")}.` }));
  closed.addEventListener("toggle", async () => {
    if (!closed.open || closed.childElementCount > 1) return;
    try {
      closed.append(sortableTable({ ...table, caption: "", body: await content("tables", table.file) }));
      if (table.notes.length) closed.append(notes);
    } catch (error) {
      closed.append(element("p", { className: "error", textContent: `${error.message}: copy the whole folder.` }));
    }
  });
  return closed;
}

function tradeoffSection() {
  const section = element("section");
  if (!data.tradeoffs.length) return section;
  section.append(element("h2", { textContent: "Cost against quality" }), ...data.tradeoffs.map(tradeoffChart));
  return section;
}

function missing(target) {
  target.append(element("section", {}, element("h1", { textContent: "Not finished" })));
  const section = target.lastChild;
  if (!data.unfinished.length) section.append(element("p", { textContent: "No unfinished runs are known." }));
  else {
    section.append(sortableTable({ caption: "Failed, interrupted, running and missing runs, with the reason.", labels: 2, className: "table texts",
      head: [["State", "", ""], ["Prompt", "", ""], ["Method", "", ""], ["Representation", "", ""], ["Seed", "", ""], ["Reason", "", ""], ["Folder", "", ""]],
      body: data.unfinished.map((run) => [run.state, run.prompt ?? "", run.method ?? "", run.representation ?? "",
        run.seed ?? "", run.why, run.folder].map((text) => [String(text), 0, ""])) }));
  }
  if (data.problems.length) {
    section.append(element("h2", { textContent: "Problems" }),
      element("ul", {}, ...data.problems.map((problem) => element("li", { textContent: problem }))));
  }
}

function copyable(text, label) {
  const button = element("button", { type: "button", textContent: "Copy" });
  const pre = element("pre", { textContent: text, tabIndex: 0 });
  pre.setAttribute("aria-label", label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // from disk some browsers refuse: select it instead
      getSelection().selectAllChildren(pre);
    }
    $("announce").textContent = `${label}: copied or selected`;
  });
  return element("div", { className: "copy" }, button, pre);
}

function cite(target) {
  const sweeps = data.commands.length ? data.commands : ["python -m trace_bench -m method=... prompt_set=..."];
  target.append(element("section", {},
    element("h1", { textContent: "Cite and reproduce" }),
    element("h2", { textContent: "Reproduce" }),
    element("p", { textContent: `These commands made the runs, with trace_bench ${data.version}. A finished run is never computed again; the same command continues an interrupted one. Each run's page has its configuration, hashes and versions.` }),
    copyable([...sweeps, "python -m evaluation.score", ...data.judges, "python -m evaluation.report"].join("\n"), "Commands"),
    element("h2", { textContent: "Cite" }),
    element("p", { textContent: "trace_bench, and the papers of the methods, representations, inits, priors and metrics in this report." }),
    copyable(data.bibtex, "BibTeX"),
    element("p", { className: "quiet" }, "This page draws 3D with three.js and Spark, and curves with uPlot, all under the MIT licence: ",
      element("a", { href: "library/LICENSES", textContent: "their licences" }), ".")));
}
