// The demonstration's own controls; the API has them only where a demonstration runs.

const DEMO_PATH = "/api/v1/demo";
const DELAY_MAX_MS = 1000;
const DELAY_STEP_MS = 10;

const demo = {
  state: null,
  controls: new Map(),
  isPolled: false,
  answered: null,

  // Begins with the first status that says so.
  async update(status) {
    show(by("demo"), status.demo && this.state !== null);
    if (!status.demo) return;
    this.status = status;
    this.showAlgorithms();
    if (this.isPolled) return;
    this.isPolled = true;
    while (true) {
      if (!document.hidden) await this.poll();
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  },

  async poll() {
    try {
      this.take(await call("GET", DEMO_PATH));
    } catch {
      // The banner tells of a lost connection already.
    }
  },

  async ask(wish) {
    const answer = await change("PATCH", DEMO_PATH, wish);
    if (answer) this.take(answer);
  },

  take(state) {
    const isFirst = this.state === null;
    this.state = state;
    this.showLoad(state.load);
    this.showView(state.load);
    this.showClients(state.clients);
    for (const [name, controls] of this.controls) if (state.servers[name]) controls.update(state.servers[name]);
    if (isFirst) live.again();
  },

  // The pool that shows: the one of the demonstration's servers.
  get pool() {
    const pools = Object.entries(this.status.pools);
    const found = pools.find(([, { servers }]) => this.state && Object.keys(this.state.servers).some((name) => name in servers));
    return found ?? pools[0];
  },

  showAlgorithms() {
    const [pool, { algorithm }] = this.pool;
    const root = by("demo-algorithms");
    if (!root.children.length) {
      for (const [name, text] of Object.entries(ALGORITHMS)) {
        const radio = make("input", { type: "radio", name: "demo-algorithm", value: name, "data-test": `demo-algorithm-${name}`, on: { change: () => this.pick(name) } });
        root.append(make("label", { class: "choice" }, radio, make("span", {}, make("b", {}, name), make("span", { class: "quiet" }, text))));
      }
    }
    this.pickFor = pool;
    for (const radio of root.querySelectorAll("input")) if (!this.picking) radio.checked = radio.value === algorithm;
  },

  async pick(algorithm) {
    this.picking = true;
    await change("PATCH", poolPath(this.pickFor), { algorithm });
    this.picking = false;
  },

  showLoad({ running, rate }) {
    say(by("demo-load"), running ? "Stop the load" : "Start the load");
    mark(by("demo-load"), "data-running", running);
    if (!this.isDragged) {
      by("demo-rate").value = rate;
      say(by("demo-rate-shown"), count(rate));
    }
  },

  showView({ answered, errors, errors_recent: recent, latency_ms: latency, running }) {
    const now = performance.now();
    const before = this.answered;
    if (!before || now - before.now > 900) {
      if (before) say(by("demo-answered"), perSecond((Math.max(0, answered - before.answered) * 1000) / (now - before.now)));
      this.answered = { now, answered };
    }
    say(by("demo-errors"), count(errors));
    say(by("demo-p50"), milliseconds(latency.p50));
    say(by("demo-p99"), milliseconds(latency.p99));
    const isWell = recent === 0;
    mark(by("demo-verdict"), "data-well", isWell);
    mark(by("demo-verdict"), "data-errors", recent);
    say(by("demo-verdict"), !running ? "◌ The load stands still." : isWell ? "✓ No client sees an error." : `✕ ${many(recent, "error", "errors")} lately.`);
  },

  // Clients keep their server under ip_hash; under the others the list only flickers.
  showClients(clients) {
    const [, { algorithm }] = this.pool;
    show(by("demo-clients-part"), algorithm === "ip_hash");
    if (algorithm !== "ip_hash") return;
    const changes = clients.reduce((sum, client) => sum + client.changes, 0);
    say(by("demo-moved"), changes === 0 ? "each has kept its own" : many(changes, "change of server", "changes of server"));
    const list = by("demo-clients");
    while (list.children.length > clients.length) list.lastElementChild.remove();
    while (list.children.length < clients.length) list.append(make("li", {}, make("span"), make("b"), make("span", { class: "quiet" })));
    clients.forEach(({ client, server, changes: moved }, index) => {
      const row = list.children[index];
      mark(row, "data-client", client);
      mark(row, "data-client-server", server ?? "");
      mark(row, "data-changes", moved);
      say(row.children[0], `${client} → `);
      say(row.children[1], server ?? "-");
      say(row.children[2], moved > 0 ? `moved ${count(moved)}x` : "");
    });
  },

  controlsOf(name, title) {
    if (!this.state || !(name in this.state.servers)) return null;
    const controls = new DemoControls(name, title);
    controls.update(this.state.servers[name]);
    this.controls.set(name, controls);
    return controls.element;
  },
};

class DemoControls {
  constructor(name, title) {
    this.kill = make("button", { type: "button", class: "kill", "data-test": "kill", on: { click: () => demo.ask({ servers: { [name]: { alive: !this.isAlive } } }) } });
    this.title = title;
    this.shown = make("output", {});
    const slow = (isSent) => () => {
      say(this.shown, delayText(this.delay.valueAsNumber));
      this.isDragged = !isSent;
      if (isSent) demo.ask({ servers: { [name]: { delay_ms: this.delay.valueAsNumber } } });
    };
    this.delay = make("input", { type: "range", min: "0", max: String(DELAY_MAX_MS), step: String(DELAY_STEP_MS), "data-test": "delay", "aria-label": `Delay of ${title} in milliseconds`, on: { input: slow(false), change: slow(true) } });
    this.element = make("div", { class: "harm" }, this.kill, make("label", { class: "slow" }, "delay ", this.delay, this.shown));
  }

  update({ alive, delay_ms: delay }) {
    this.isAlive = alive;
    say(this.kill, alive ? "Kill" : "Revive");
    mark(this.kill, "data-alive", alive);
    mark(this.kill, "aria-label", `${alive ? "Kill" : "Revive"} ${this.title}`);
    if (this.isDragged) return;
    this.delay.value = delay;
    say(this.shown, delayText(delay));
  }
}

function delayText(number) {
  return number === 0 ? "none" : `${count(number)} ms`;
}

by("demo-load").addEventListener("click", () => demo.ask({ load: { running: !demo.state.load.running } }));

by("demo-rate").addEventListener("input", () => {
  demo.isDragged = true;
  say(by("demo-rate-shown"), count(by("demo-rate").valueAsNumber));
});

by("demo-rate").addEventListener("change", () => {
  demo.isDragged = false;
  demo.ask({ load: { rate: by("demo-rate").valueAsNumber } });
});
