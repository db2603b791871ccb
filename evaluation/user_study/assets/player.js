// Two videos as one: they start, stop and turn together.
class Pair {
  constructor(left, right, { onChange, onTrouble }) {
    this.videos = [left, right];
    this.onChange = onChange;
    this.onTrouble = onTrouble;
    this.playing = false;
    this.wanted = 0; // counts loads, so that late events of an earlier pair are ignored
    for (const video of this.videos) {
      video.muted = true;
      video.addEventListener("ended", () => this.restart());
      video.addEventListener("error", () => this.fail());
    }
    const tick = () => {
      this.align();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  load(sources, play) {
    const load = ++this.wanted;
    this.sources = sources;
    this.pause();
    let ready = 0;
    this.videos.forEach((video, i) => {
      const start = () => {
        if (load !== this.wanted) return;
        this.videos[1].playbackRate = this.ratio();
        if (++ready === 2 && play) this.play();
        this.onChange(this);
      };
      video.addEventListener("canplaythrough", start, { once: true });
      video.src = sources[i];
      video.load();
    });
  }

  // The right video's playback rate, so that both turn once in the same time.
  ratio() {
    const [left, right] = this.videos;
    return left.duration && right.duration ? Math.min(16, Math.max(0.07, right.duration / left.duration)) : 1;
  }

  get fraction() {
    const [left] = this.videos;
    return left.duration ? Math.min(1, left.currentTime / left.duration) : 0;
  }

  play() {
    const load = this.wanted;
    this.playing = true;
    this.videos[1].playbackRate = this.ratio();
    Promise.all(this.videos.map((video) => video.play()))
      .catch(() => { if (load === this.wanted) this.pause(); }); // the browser requires a click first
    this.onChange(this);
  }

  pause() {
    this.playing = false;
    for (const video of this.videos) video.pause();
    this.onChange(this);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  turn(fraction) {
    this.pause();
    for (const video of this.videos) if (video.duration) video.currentTime = Math.min(fraction, 0.9999) * video.duration;
    this.onChange(this);
  }

  restart() {
    if (!this.playing) return;
    for (const video of this.videos) video.currentTime = 0;
    this.play();
  }

  align() {
    if (!this.playing) return;
    const [left, right] = this.videos;
    const target = this.fraction * right.duration;
    if (!right.seeking && !left.seeking && Math.abs(right.currentTime - target) > 0.08) right.currentTime = target;
    this.onChange(this);
  }

  fail() {
    this.pause();
    this.onTrouble(true);
  }
}
