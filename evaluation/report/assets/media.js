// Pictures and turntables.
const TURN_MS = 4000;

function picture(media, alt, file = "poster.webp") {
  return element("img", { src: address(media, file), alt, loading: "lazy", decoding: "async", draggable: false });
}

// A picture that turns while the pointer is on it, or while `play(true)` holds.
function turntable(media, alt) {
  const box = element("span", { className: "turntable" });
  if (!has(media, "p")) {
    box.append(element("span", { className: "nothing", textContent: "no picture" }));
    return { box, play() {} };
  }
  box.append(picture(media, alt));
  let video = null;
  const play = (wanted) => {
    if (!has(media, "f") || wanted === Boolean(video)) return;
    if (!wanted) {
      video.removeAttribute("src");
      video.load(); // frees the decoder
      video.remove();
      video = null;
      return;
    }
    video = element("video", { muted: true, loop: true, playsInline: true, src: address(media, "turntable.mp4") });
    video.setAttribute("aria-hidden", "true");
    const mine = video;
    // All turntables of the page show the same side at the same time.
    mine.addEventListener("loadedmetadata", () => {
      mine.currentTime = (((media.start ?? 0) + (performance.now() % TURN_MS) / TURN_MS) % 1) * mine.duration;
    }, { once: true });
    mine.addEventListener("playing", () => mine.classList.add("playing"), { once: true });
    mine.play().catch(() => {});
    box.append(mine);
  };
  return { box, play };
}

function hoverPlays(target, table, isHeld = () => false) {
  if (still) return;
  target.addEventListener("pointerenter", () => table.play(true));
  target.addEventListener("pointerleave", () => { if (!isHeld()) table.play(false); });
  target.addEventListener("focusin", () => table.play(true));
  target.addEventListener("focusout", () => { if (!isHeld()) table.play(false); });
}

// Videos with one player: play, pause, and a slider that turns all.
function player(videos) {
  const play = element("button", { type: "button", textContent: "Play" });
  const turn = element("input", { type: "range", min: 0, max: 359, step: 3, value: 0 });
  turn.setAttribute("aria-label", videos.length > 1 ? "Turn all" : "Turn");
  const together = new Together(videos, {
    onChange({ playing, fraction }) {
      const label = playing ? "Pause" : "Play";
      if (play.textContent !== label) play.textContent = label;
      if (playing || document.activeElement !== turn) turn.value = Math.round(fraction * 360) % 360;
      turn.setAttribute("aria-valuetext", `${turn.value} degrees`);
    },
  });
  play.addEventListener("click", () => together.toggle());
  turn.addEventListener("input", () => together.turn(turn.value / 360));
  return { together, controls: element("div", { className: "player" }, play, turn) };
}

function video(media, alt) {
  const made = element("video", { muted: true, playsInline: true, preload: "auto" });
  if (has(media, "p")) made.poster = address(media, "poster.webp");
  made.setAttribute("aria-label", alt);
  return made;
}
