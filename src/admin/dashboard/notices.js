// What is told beside the pools: the header, notices about the configuration, and events.

const EVENTS_MAX = 50;
const DIFFERS_SHOWN = 8;

function showHeader(status) {
  say(by("version"), status.version);
  mark(by("version"), "title", status.upgrades > 0 ? `process ${status.pid}, after ${many(status.upgrades, "upgrade", "upgrades")}` : `process ${status.pid}`);
  mark(by("readiness"), "data-ready", status.ready);
  say(by("readiness").firstElementChild, status.ready ? "✓" : "!");
  const why = status.reasons.join("; ") || status.stage;
  say(by("readiness-text"), status.ready ? "Ready" : `Not ready: ${why}`);
  say(by("uptime"), duration(status.uptime_seconds));
  say(by("workers"), count(status.workers));
  const { active, max, total } = status.connections;
  say(by("total"), count(active));
  mark(by("total"), "title", `${count(active)} now, at most ${count(max)}; ${count(total)} since the start`);
  const down = Object.values(status.pools).flatMap(({ servers }) => Object.values(servers)).filter(({ state }) => state === "down").length;
  document.title = down > 0 ? `(${down} down) evenkeel` : "evenkeel";
}

// While nobody answers, the header claims nothing.
function showUnknown() {
  mark(by("readiness"), "data-ready", "");
  say(by("readiness").firstElementChild, "?");
  say(by("readiness-text"), "Not known");
  document.title = "(lost) evenkeel";
}

const notices = {
  differs: make("details", { class: "notice", "data-test": "differs" }, make("summary"), make("ul")),
  confirm: make("div", { class: "notice", "data-test": "awaiting" }),

  update({ config }) {
    const wanted = [];
    if (config.confirm_seconds !== null) wanted.push(this.awaiting(config.confirm_seconds));
    // Without a file there is nothing to differ from.
    if (config.file !== null && config.differs.length > 0) wanted.push(this.differing(config));
    arrange(by("notices"), wanted);
  },

  awaiting(seconds) {
    if (!this.confirm.children.length) this.confirm.append(make("p"));
    say(this.confirm.firstElementChild, `A reload awaits confirmation: it is taken back in ${duration(seconds)}.`);
    if (access.mayChange !== Boolean(this.button)) {
      this.button?.remove();
      this.button = access.mayChange ? make("button", { type: "button", class: "strong", "data-test": "confirm", on: { click: () => change("POST", "/api/v1/confirm", undefined, "Confirmed.") } }, "Keep it") : null;
      if (this.button) this.confirm.append(this.button);
    }
    return this.confirm;
  },

  differing({ file, differs }) {
    const [summary, list] = this.differs.children;
    say(summary, `What runs differs from ${file} in ${many(differs.length, "place", "places")}; a reload undoes that.`);
    const lines = differs.slice(0, DIFFERS_SHOWN);
    if (differs.length > lines.length) lines.push(`and ${count(differs.length - lines.length)} more`);
    if (list.dataset.lines !== lines.join("\n")) {
      list.dataset.lines = lines.join("\n");
      list.replaceChildren(...lines.map((line) => make("li", {}, line)));
    }
    return this.differs;
  },
};

const KINDS = {
  server_up: ["up", "●"],
  server_down: ["down", "✕"],
  server_share: ["draining", "◔"],
  server_state: ["draining", "◐"],
  server_ejected: ["draining", "◌"],
  pool_state: ["down", "!"],
  changed: ["plain", "✎"],
  reloaded: ["plain", "↻"],
  confirmed: ["up", "✓"],
  reload_failed: ["down", "!"],
  upgraded: ["up", "⇧"],
  upgrade_failed: ["down", "!"],
  rolled_back: ["draining", "↶"],
  killed: ["down", "✕"],
  started: ["up", "▶"],
  stopping: ["down", "■"],
};

const happenings = {
  seen: new Set(),
  isLive: false,

  // Told anew after each connect: what is here already stays one.
  take(event) {
    const key = `${event.number} ${event.time} ${event.text}`;
    if (this.seen.has(key)) return;
    this.seen.add(key);
    const [look, sign] = KINDS[event.kind] ?? ["plain", "·"];
    const time = new Date(event.time);
    const row = make(
      "li",
      { "data-kind": event.kind, "data-look": look },
      make("span", { class: "sign", "aria-hidden": "true" }, sign),
      make("time", { datetime: event.time, title: time.toLocaleString() }, clockTime(time)),
      make("span", { class: "kind" }, event.kind.replaceAll("_", " ")),
      make("span", { class: "text" }, event.text),
    );
    by("events").prepend(row);
    while (by("events").children.length > EVENTS_MAX) by("events").lastElementChild.remove();
    show(by("no-events"), false);
    // The backlog of a connect is not read aloud.
    if (this.isLive) speak(event.text);
  },
};
