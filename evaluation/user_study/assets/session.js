// The session of a rater's token, unsealed; null if the page has none (evaluation/user_study/tokens.py seals them).
function unseal(data, token) {
  const box = data.sessions[sha256(["name", data.study, token].join("\n")).slice(0, 24)];
  if (!box) return null;
  const bytes = box.match(/../g).map((pair) => parseInt(pair, 16));
  for (let at = 0; at < bytes.length; at += 32) {
    const key = sha256(["box", data.study, token, at / 32].join("\n"));
    for (let i = 0; i < 32 && at + i < bytes.length; i++) bytes[at + i] ^= parseInt(key.slice(2 * i, 2 * i + 2), 16);
  }
  return JSON.parse(new TextDecoder().decode(new Uint8Array(bytes)));
}

// The token that somebody typed or pasted, in whatever case and grouping.
function tokenOf(text) {
  return text.toUpperCase().replace(/[^0-9A-Z]/g, "").match(/.{1,5}/g)?.join("-") ?? "";
}

// A rater's answers: stored in localStorage, downloaded as a file that is signed with the rater's token.
class Session {
  constructor(data, token) {
    const { rater, screens } = unseal(data, token);
    this.data = data;
    this.token = token;
    this.rater = rater;
    this.trials = screens;
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

  // The file's content. The signature shows that it is this rater's and was not edited;
  // evaluation/user_study/answers.py computes the same one.
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
      schema_version: 2,
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
    const signature = sha256(["signature", this.token, sha256(lines.join("\n"))].join("\n"));
    return { ...head, answers, signature };
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
