const data = JSON.parse($("data").textContent);
let session = null;
let since = 0; // last reading of the current screen's clock
const ahead = [];

const pair = new Together([$("video-left"), $("video-right")], { onChange: drawPlayer, onTrouble: trouble });

function show(id) {
  for (const part of ["intro", "task", "end"]) $(part).hidden = part !== id;
}

// --- the player ---

function drawPlayer({ playing, fraction }) {
  const degrees = Math.round(fraction * 360);
  const label = playing ? "Pause" : "Play";
  if ($("play").textContent !== label) $("play").textContent = label;
  if (playing || document.activeElement !== $("turn")) $("turn").value = degrees;
  $("turn").setAttribute("aria-valuetext", `${degrees} degrees`);
}

function trouble(is) {
  $("trouble").textContent = is ? "A clip cannot be played: reload the clips or try another browser." : "";
  $("retry").hidden = !is;
}

function loadClips(trial) {
  const [, left, right] = session.trials[trial];
  trouble(false);
  pair.load([left, right].map((clip) => `clips/${data.clips[clip]}`), !still);
}

function preload(trial) {
  ahead.length = 0;
  for (const clip of (session.trials[trial] ?? []).slice(1, 3)) {
    ahead.push(element("video", { preload: "auto", muted: true, src: `clips/${data.clips[clip]}` }));
  }
}

// --- a screen ---

function drawScreen() {
  const trial = session.state.at;
  const [prompt, , , side] = session.trials[trial];
  show("task");
  $("prompt").textContent = `“${data.prompts[prompt]}”`;
  $("instruction").hidden = !side;
  $("instruction").textContent = side
    ? `This screen checks your attention: please choose ${data.choices[side]} in all three questions.` : "";
  $("video-left").setAttribute("aria-label", `Left object, turning: ${data.prompts[prompt]}`);
  $("video-right").setAttribute("aria-label", `Right object, turning: ${data.prompts[prompt]}`);
  $("questions").reset();
  for (const [aspect, choice] of Object.entries(session.draft(trial).choices)) {
    $(`${aspect}-${choice}`).checked = true;
  }
  $("back").disabled = trial === 0;
  drawProgress();
  loadClips(trial);
  preload(trial + 1);
  since = performance.now();
  $("announce").textContent = `Screen ${trial + 1} of ${session.trials.length}. ${$("instruction").textContent}`;
  $("prompt").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function drawProgress() {
  const trial = session.state.at;
  const missing = data.aspects.filter((aspect) => !(aspect.id in session.draft(trial).choices)).length;
  $("count").textContent = `Screen ${trial + 1} of ${session.trials.length}`;
  $("progress").max = session.trials.length;
  $("progress").value = session.count;
  $("next").setAttribute("aria-disabled", String(missing > 0));
  $("next").textContent = trial + 1 === session.trials.length ? "Finish" : "Next";
  $("hint").textContent = missing ? `${missing} question${missing > 1 ? "s" : ""} to answer` : "";
  $("storage").hidden = session.keeps;
}

function clock() {
  const now = performance.now();
  if (session && !$("task").hidden && document.visibilityState === "visible") {
    session.draft(session.state.at).ms += now - since;
  }
  since = now;
}

function choose(aspect, choice) {
  clock();
  session.draft(session.state.at).choices[aspect] = choice;
  session.keep();
  drawProgress();
}

function go(step) {
  clock();
  if (step > 0 && !session.answered(session.state.at)) {
    firstOpen()?.focus();
    return;
  }
  const to = session.state.at + step;
  session.state.at = Math.min(to, session.trials.length - 1);
  session.keep();
  if (to >= session.trials.length) finish();
  else drawScreen();
}

function finish() {
  pair.pause();
  show("end");
  $("saved").textContent = "";
  $("return-to").textContent = data.return_to ?? "Send the file to the person who gave you this page.";
  $("end-heading").focus();
}

// --- keys ---

function firstOpen() {
  const { choices } = session.draft(session.state.at);
  const open = data.aspects.find((aspect) => !(aspect.id in choices));
  return open ? $(`${open.id}-left`) : null;
}

function onKey(event) {
  if (event.repeat) return; // a held key answers one question
  if ($("task").hidden || !$("shortcuts").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = Object.keys(data.choices)[Number(event.key) - 1];
  if (choice) {
    const focused = document.activeElement.closest?.("fieldset")?.dataset.aspect ?? firstOpen()?.name;
    if (!focused) return;
    $(`${focused}-${choice}`).checked = true;
    choose(focused, choice);
    (firstOpen() ?? $("next")).focus();
  } else if (event.key.toLowerCase() === "p") {
    pair.toggle();
  }
}

// --- start ---

function build() {
  for (const aspect of data.aspects) {
    $("aspects").append(element("dt", { textContent: aspect.question }), element("dd", { textContent: aspect.hint }));
    const group = element("fieldset", {}, element("legend", {},
      element("b", { textContent: aspect.question }), element("span", { textContent: aspect.hint })));
    group.dataset.aspect = aspect.id;
    for (const [choice, label] of Object.entries(data.choices)) {
      const input = element("input", { type: "radio", name: aspect.id, id: `${aspect.id}-${choice}`, value: choice });
      group.append(element("label", { className: "choice" }, input, element("span", { textContent: label })));
    }
    $("questions").append(group);
  }
}

function start(code) {
  const token = tokenOf(code);
  if (!unseal(data, token)) {
    $("code-row").hidden = false;
    $("code-error").textContent = token ? `${token} is not a code of this study: please check it.` : "Please enter your code.";
    $("code").setAttribute("aria-invalid", "true");
    $("code").focus();
    return;
  }
  session = new Session(data, token);
  session.keep();
  if (session.finished) finish();
  else drawScreen();
}

function onStorage(event) { // another tab answered: show its state
  if (!session || event.key !== session.key || !event.newValue) return;
  session = null; // while it unloads, the page must not keep its old state
  show("intro");
  location.reload();
}

build();
$("start-form").addEventListener("submit", (event) => { event.preventDefault(); start($("code").value); });
$("questions").addEventListener("submit", (event) => event.preventDefault());
$("questions").addEventListener("change", ({ target }) => choose(target.name, target.value));
$("next").addEventListener("click", () => go(1));
$("back").addEventListener("click", () => go(-1));
$("again").addEventListener("click", drawScreen);
$("play").addEventListener("click", () => pair.toggle());
$("retry").addEventListener("click", () => loadClips(session.state.at));
$("turn").addEventListener("input", ({ target }) => pair.turn(target.value / 360));
$("save").addEventListener("click", () => { clock(); $("announce").textContent = `Downloaded ${session.download()}`; });
$("download").addEventListener("click", () => {
  $("saved").textContent = `Downloaded ${session.download()}. If it is not in your downloads, press the button again.`;
});
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") { clock(); session?.keep(); } else { since = performance.now(); }
});
addEventListener("storage", onStorage);
addEventListener("beforeunload", (event) => {
  if (session && !session.keeps && session.count) event.preventDefault();
});
addEventListener("hashchange", () => location.reload()); // another rater's link
const given = location.hash.slice(1); // never sent to a server
$("code").value = given;
$("code-row").hidden = !!unseal(data, tokenOf(given));
show("intro");
