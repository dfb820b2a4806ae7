// The card of one server: what it is, what it gets, and what may be done to it.

const CONFIRM_MS = 4000;

class ServerCard {
  constructor(pool, name, index) {
    this.pool = pool;
    this.name = name;
    this.parts = {};
    const part = (key, tag, attributes = {}) => (this.parts[key] = make(tag, attributes));
    const figure = (key, label, title = null) => make("div", { title }, make("dt", {}, label), part(key, "dd", { "data-test": key }));
    this.element = make(
      "li",
      { class: "server", "data-server": name, "data-pool": pool, style: `--own: var(--${seriesInk(index)})` },
      make(
        "div",
        { class: "who" },
        make("span", { class: "name", title: name }, name),
        make("span", { class: "state" }, part("sign", "span", { class: "sign", "aria-hidden": "true" }), part("word", "span", { "data-test": "state" })),
        part("note", "span", { class: "tag" }),
        part("why", "p", { class: "why", "data-test": "reason" }),
      ),
      make(
        "div",
        { class: "portion" },
        make("p", {}, part("share", "b"), make("span", { class: "quiet" }, " % of new")),
        make("div", { class: "gauge", "aria-hidden": "true" }, part("gauge", "i")),
      ),
      make("dl", { class: "figures" }, figure("fresh", "new /s"), figure("active", "active"), figure("moved", "bytes /s"), figure("failed", "failed", "Tries to connect that failed; another server was tried for the client")),
      part("drain", "div", { class: "drain", "data-test": "drain-progress", hidden: "" }),
    );
    this.drainText = make("p", {});
    this.drainBar = make("progress", { "aria-label": `Drain of ${name}` });
    this.parts.drain.append(this.drainBar, this.drainText);
  }

  update(server) {
    this.server = server;
    const { element, parts } = this;
    const track = past.track("server", this.pool, this.name);
    const share = past.share(this.pool, this.name);
    this.share = share;
    this.rate = track.rate("total");
    const state = STATES[server.state] ?? { word: server.state, sign: "?" };
    mark(element, "data-state", server.state);
    mark(element, "data-share", share.toFixed(1));
    mark(element, "data-weight", server.weight);
    mark(element, "data-active", server.connections.active);
    say(parts.sign, state.sign);
    say(parts.word, state.word);
    say(parts.note, this.notes(server));
    say(parts.why, `${server.address} · ${healthText(server.health)}`);
    mark(parts.why, "title", parts.why.textContent);
    say(parts.share, percent(share));
    parts.gauge.style.inlineSize = `${share.toFixed(1)}%`;
    say(parts.fresh, perSecond(this.rate));
    say(parts.active, count(server.connections.active) + (server.max_connections ? ` / ${count(server.max_connections)}` : ""));
    say(parts.moved, bytes(track.rate("upstream") + track.rate("downstream")));
    say(parts.failed, count(server.connections.failed));
    mark(parts.failed, "class", server.connections.failed > 0 ? "some" : null);
    this.showDrain(server.drain);
    this.showControls();
  }

  notes({ weight, backup, ejected, slow_start: ramp }) {
    const notes = [];
    if (weight !== 1) notes.push(`weight ${weight}`);
    if (backup) notes.push("backup");
    if (ejected) notes.push(`ejected for ${duration(ejected.until_seconds)}`);
    if (ramp) notes.push(`slow start ${ramp.percent} %`);
    return notes.join(" · ");
  }

  showDrain(drain) {
    show(this.parts.drain, drain !== null);
    if (drain === null) return;
    this.drainBar.max = Math.max(1, drain.began_with);
    this.drainBar.value = drain.began_with - drain.left;
    say(this.drainText, drainText(drain));
  }

  // Controls exist only for who may use them; what is being typed in is left alone.
  showControls() {
    const isWanted = access.mayChange;
    if (isWanted !== Boolean(this.controls)) {
      this.controls?.element.remove();
      this.controls = isWanted ? new ServerControls(this) : null;
      if (this.controls) this.element.append(this.controls.element);
    }
    this.controls?.update(this.server);
  }
}

class ServerControls {
  constructor({ pool, name }) {
    this.path = serverPath(pool, name);
    this.title = `${pool}/${name}`;
    const button = (test, text, heard, label) =>
      make("button", { type: "button", "data-test": test, "aria-label": `${label ?? text} ${this.title}`, on: { click: heard } }, text);
    this.ready = button("ready", "Ready", () => this.ask("up"));
    this.drain = button("drain", "Drain", () => this.ask("draining"));
    this.pace = button("drain-paced", "…", () => openPace(this), "Drain at a pace:");
    this.pace.prepend(make("span", { class: "long" }, "paced"));
    mark(this.pace, "title", "Drain at a pace");
    this.maintenance = button("maintenance", "Maintenance", () => this.close());
    this.weight = make("input", { type: "number", min: "0", max: "256", "data-test": "weight", "aria-label": `Weight of ${this.title}`, on: { change: () => this.weigh() } });
    this.element = make(
      "div",
      { class: "controls" },
      make("div", { class: "joined", role: "group", "aria-label": `State of ${this.title}` }, this.ready, this.drain, this.pace, this.maintenance),
      make("label", { class: "weight" }, "weight ", this.weight),
    );
    const own = demo.controlsOf(name, this.title);
    if (own) this.element.append(own);
  }

  update({ state, weight, connections }) {
    this.active = connections.active;
    mark(this.ready, "aria-pressed", state === "up" || state === "down");
    mark(this.drain, "aria-pressed", state === "draining");
    mark(this.maintenance, "aria-pressed", state === "maintenance");
    if (document.activeElement !== this.weight) this.weight.value = weight;
  }

  ask(state, pace, tell) {
    const words = { up: "ready", draining: "draining", maintenance: "in maintenance" };
    return change("PATCH", this.path, pace ? { state, drain: pace } : { state }, `${this.title}: ${words[state]}`, tell);
  }

  // Maintenance cuts connections: asked for twice where there are any.
  close() {
    if (this.active === 0 || this.isAsked) {
      this.unask();
      this.ask("maintenance");
      return;
    }
    this.isAsked = true;
    this.maintenance.classList.add("asked");
    say(this.maintenance, `Cut ${this.active} now?`);
    setTimeout(() => this.unask(), CONFIRM_MS);
  }

  unask() {
    this.isAsked = false;
    this.maintenance.classList.remove("asked");
    say(this.maintenance, "Maintenance");
  }

  weigh() {
    const weight = this.weight.valueAsNumber;
    if (Number.isInteger(weight)) change("PATCH", this.path, { weight }, `${this.title}: weight ${weight}`);
  }
}

function healthText({ last, reason, since_seconds: since }) {
  if (last === "off") return "no health checks";
  return `${reason} · for ${duration(since)}`;
}

function drainText({ began_with: all, left, rate, estimate_seconds: estimate, deadline_seconds: deadline }) {
  const parts = [`${count(left)} of ${count(all)} left`];
  if (rate) parts.push(`at ${rate}`);
  if (estimate !== null && left > 0) parts.push(`about ${duration(estimate)} more`);
  if (deadline !== null && left > 0) parts.push(`all closed in ${duration(deadline)}`);
  if (left === 0) parts.push("done");
  return parts.join(" · ");
}

// A pace to begin with: brisk, and kind to who is busy.
const PACE = { rate: "20/s", quiet: "200ms", deadline: "10m" };
let pacing = null;

function openPace(controls) {
  pacing = controls;
  say(by("pace-title"), `Drain ${controls.title}`);
  say(by("pace-wrong"), "");
  for (const [field, value] of Object.entries(PACE)) by(`pace-${field}`).value = value;
  openDialog(by("pace"));
}

by("pace-cancel").addEventListener("click", () => by("pace").close());

by("pace-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const pace = {};
  for (const field of Object.keys(PACE)) {
    const value = by(`pace-${field}`).value.trim();
    if (value) pace[field] = value;
  }
  const tell = (text) => say(by("pace-wrong"), text);
  if (await pacing.ask("draining", Object.keys(pace).length ? pace : undefined, tell)) by("pace").close();
});
