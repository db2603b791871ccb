// A rater's answers: stored in localStorage, downloaded as a file.
class Session {
  constructor(data, rater) {
    this.data = data;
    this.rater = rater;
    this.trials = data.raters[rater];
    this.key = `trace_bench/user_study/${data.study}/${rater}`;
    this.keeps = true;
    const random = crypto.getRandomValues(new Uint8Array(8));
    this.state = {
      session: Array.from(random, (x) => x.toString(16).padStart(2, "0")).join(""),
      started: new Date().toISOString(),
      at: 0,
      drafts: {}, // trial -> {choices: {aspect: choice}, ms}
    };
    this.load();
  }

  load() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.key));
      if (kept && kept.session && kept.drafts) this.state = kept;
    } catch {
      this.keeps = false;
    }
  }

  keep() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.state));
    } catch {
      this.keeps = false;
    }
  }

  draft(trial) {
    return this.state.drafts[trial] ??= { choices: {}, ms: 0 };
  }

  answered(trial) {
    const draft = this.state.drafts[trial];
    return !!draft && this.data.aspects.every((aspect) => aspect.id in draft.choices);
  }

  get count() {
    return this.trials.filter((_, trial) => this.answered(trial)).length;
  }

  get finished() {
    return this.count === this.trials.length;
  }

  // The file's content. The checksum reveals damaged or edited files; evaluation/user_study/answers.py computes
  // the same one.
  file() {
    const ids = this.data.aspects.map((aspect) => aspect.id);
    const answers = this.trials.flatMap(([, left, right], trial) => this.answered(trial) ? [{
      trial,
      left: this.data.clips[left],
      right: this.data.clips[right],
      choices: Object.fromEntries(ids.map((id) => [id, this.draft(trial).choices[id]])),
      ms: Math.round(this.draft(trial).ms),
    }] : []);
    const head = {
      format: this.data.format,
      schema_version: 1,
      study: this.data.study,
      rater: this.rater,
      session: this.state.session,
      started: this.state.started,
      saved: new Date().toISOString(),
      finished: this.finished,
    };
    const lines = [
      Object.values(head).join("|"),
      ...answers.map((a) => [a.trial, a.left, a.right, ...ids.map((id) => a.choices[id]), a.ms].join("|")),
    ];
    return { ...head, answers, checksum: sha256(lines.join("\n")) };
  }

  download() {
    const text = JSON.stringify(this.file(), null, 1) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `answers-${this.data.study}-${this.rater}.json`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    return link.download;
  }
}
