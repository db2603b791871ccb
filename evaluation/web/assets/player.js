// Several videos of one turn each as one: they start, stop and turn together.
class Together {
  constructor(videos, { onChange = () => {}, onTrouble = () => {} } = {}) {
    this.videos = videos;
    this.onChange = onChange;
    this.onTrouble = onTrouble;
    this.starts = videos.map(() => 0); // where each is, as a share of its turn, when the first begins
    this.playing = false;
    this.wanted = 0; // counts loads, so that late events of earlier videos are ignored
    this.closed = false;
    videos.forEach((video, i) => {
      video.muted = true;
      video.addEventListener("ended", () => this.ended(i));
      video.addEventListener("error", () => this.fail());
    });
    const tick = () => {
      if (this.closed) return;
      this.align();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  load(sources, play, starts = sources.map(() => 0)) {
    const load = ++this.wanted;
    this.starts = starts.map((start) => (((start - starts[0]) % 1) + 1) % 1);
    this.pause();
    let ready = 0;
    this.videos.forEach((video, i) => {
      const start = () => {
        if (load !== this.wanted) return;
        this.setRates();
        if (++ready === this.videos.length) {
          if (starts[0]) this.turn(0, starts[0]);
          if (play) this.play();
        }
        this.onChange(this);
      };
      video.addEventListener("canplaythrough", start, { once: true });
      video.src = sources[i];
      video.load();
    });
  }

  // Playback rates with which all turn once in the same time.
  setRates() {
    const [lead, ...others] = this.videos;
    for (const video of others) {
      const known = lead.duration && video.duration;
      video.playbackRate = known ? Math.min(16, Math.max(0.07, video.duration / lead.duration)) : 1;
    }
  }

  get fraction() {
    const [lead] = this.videos;
    return lead.duration ? Math.min(1, lead.currentTime / lead.duration) : 0;
  }

  target(i, fraction) {
    const video = this.videos[i];
    const place = this.starts[i] ? (fraction + this.starts[i]) % 1 : fraction;
    return Math.min(place, 0.9999) * video.duration;
  }

  play() {
    const load = this.wanted;
    this.playing = true;
    this.setRates();
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

  // Show one side of all: `fraction` of a turn after where the first began.
  turn(fraction, from = 0) {
    this.pause();
    const place = from ? (fraction + from) % 1 : fraction;
    this.videos.forEach((video, i) => { if (video.duration) video.currentTime = this.target(i, place); });
    this.onChange(this);
  }

  ended(i) {
    if (!this.playing) return;
    if (this.starts[i]) {
      this.videos[i].currentTime = 0;
      this.videos[i].play();
      return;
    }
    this.videos.forEach((video, other) => { video.currentTime = this.target(other, 0); });
    this.play();
  }

  align() {
    if (!this.playing) return;
    const [lead] = this.videos;
    this.videos.forEach((video, i) => {
      if (!i || lead.seeking || video.seeking || !video.duration) return;
      const target = this.target(i, this.fraction);
      const apart = Math.abs(video.currentTime - target);
      const around = this.starts[i] ? Math.min(apart, video.duration - apart) : apart;
      if (around > 0.08) video.currentTime = target;
    });
    this.onChange(this);
  }

  fail() {
    this.pause();
    this.onTrouble(true);
  }

  close() {
    this.closed = true;
    ++this.wanted;
    for (const video of this.videos) {
      video.pause();
      video.removeAttribute("src");
    }
  }
}
