// Addresses, keys and colours.
const SECTIONS = [["overview", "Overview", "o"], ["gallery", "Gallery", "g"], ["compare", "Compare", "c"], ["missing", "Not finished", "m"], ["cite", "Cite", "r"]];
const KEYS = [["O G C M R", "overview, gallery, compare, not finished, cite and reproduce"], ["/", "search prompts"],
  ["J K", "next and previous run"], ["P", "play and pause; in the gallery, all"], ["D", "light or dark"], ["Esc", "back to the gallery"], ["?", "these keys"]];
const current = { close: null, name: "", player: null, view: null, views: null };

function route() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const [name] = [...parameters.keys()];
  current.close?.();
  Object.assign(current, { close: null, name: name || "overview", player: null, view: null, views: null });
  const target = element("div", { className: "view" });
  $("content").className = "";
  $("content").replaceChildren(target);
  const value = parameters.get(name) ?? "";
  if (name === "run") current.close = runPage(target, value);
  else if (name === "compare") {
    const ids = value ? value.split(",") : [...chosen];
    current.close = comparison(target, ids);
  } else if (name === "gallery") current.close = gallery(target, parameters);
  else if (name === "missing") missing(target);
  else if (name === "cite") cite(target);
  else {
    current.name = "overview";
    overview(target);
  }
  for (const link of $("sections").children) {
    if (link.dataset.name === current.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  drawTray();
  const heading = target.querySelector("h1");
  document.title = name === "run" || name === "compare" ? `${heading.textContent} – ${data.title}` : data.title;
  if (name !== "gallery") scrollTo(0, 0);
}

function isDark() {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  try { localStorage.setItem("trace_bench theme", document.documentElement.dataset.theme); } catch { /* not kept */ }
  dispatchEvent(new Event("resize")); // charts take the new colours
}

function neighbour(step) {
  const order = data.runs.map((run) => run.id);
  const at = order.indexOf(new URLSearchParams(location.hash.slice(1)).get("run"));
  if (at >= 0) location.hash = `run=${order[(at + step + order.length) % order.length]}`;
}

function onKey(event) {
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=range]), select, textarea");
  if (event.key === "Escape" && !$("keys").open && ["run", "compare"].includes(current.name)) location.hash = galleryPlace.hash;
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const section = SECTIONS.find(([, , letter]) => letter === key);
  if (section) location.hash = section[0];
  else if (key === "/") {
    event.preventDefault();
    if (current.name !== "gallery") { // without an event that would draw the gallery again, without the cursor
      history.pushState(null, "", galleryPlace.hash);
      route();
    }
    $("find")?.focus();
  } else if (key === "j") neighbour(1);
  else if (key === "k") neighbour(-1);
  else if (key === "p") {
    if (current.player) current.player.toggle();
    else $("play-all")?.click();
  } else if (key === "d") setTheme(!isDark());
  else if (key === "?") $("keys").showModal();
}

function start() {
  for (const [name, label, letter] of SECTIONS) {
    const link = element("a", { href: `#${name}`, textContent: label, title: `Key ${letter.toUpperCase()}` });
    link.dataset.name = name;
    $("sections").append(link);
  }
  for (const [key, what] of KEYS) $("keys-list").append(element("dt", {}, element("kbd", { textContent: key })), element("dd", { textContent: what }));
  let kept = null;
  try { kept = localStorage.getItem("trace_bench theme"); } catch { /* the browser's own */ }
  if (kept) document.documentElement.dataset.theme = kept;
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").addEventListener("click", () => setTheme(!isDark()));
  addEventListener("hashchange", () => { if (location.hash !== "#content") route(); });
  document.addEventListener("keydown", onKey);
  route();
}

start();
