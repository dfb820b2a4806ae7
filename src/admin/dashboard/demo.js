// The demonstration's own controls; the API has them only where a demonstration runs.

const DEMO_PATH = "/api/v1/demo";
// What the API takes, and what of it the slider spans: the more is typed.
const DELAY_MAX_MS = 10000;
const SLIDER_MAX_MS = 1000;
const SLIDER_STEP_MS = 10;
// Answers are counted over this long, as connections are.
const ANSWERED_MS = WINDOW_SECONDS * 1000;
// Each client's first visits after a change show where it goes from then on.
const SETTLING_VISITS = 3;

const demo = {
  state: null,
  controls: new Map(),
  isPolled: false,
  samples: [],
  skipped: Infinity,
  // Changes of server that each client had when ip_hash had settled.
  kept: null,

  // Begins with the first status that says so.
  async update(status) {
    show(by("demo"), status.demo && this.state !== null);
    if (!status.demo) return;
    this.status = status;
    this.showAlgorithms();
    if (this.isPolled) return;
    this.isPolled = true;
    while (true) {
      if (!document.hidden && live.lostSince === null) await this.poll();
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

  showLoad({ running, rate, skipped, in_flight: waiting }) {
    say(by("demo-load"), running ? "Stop the load" : "Start the load");
    mark(by("demo-load"), "data-running", running);
    // The load is slower than asked for while as many wait as it may have.
    show(by("demo-held"), skipped > this.skipped);
    say(by("demo-held"), `Held back: ${count(waiting)} wait for an answer already.`);
    this.skipped = skipped;
    if (!this.isDragged) {
      by("demo-rate").value = rate;
      say(by("demo-rate-shown"), count(rate));
    }
  },

  showView({ answered, errors, errors_recent: recent, latency_ms: latency, running }) {
    this.showAnswered(answered);
    say(by("demo-errors"), count(errors));
    say(by("demo-p50"), milliseconds(latency.p50));
    say(by("demo-p99"), milliseconds(latency.p99));
    const isWell = recent === 0;
    mark(by("demo-verdict"), "data-well", running || !isWell ? isWell : null);
    mark(by("demo-verdict"), "data-errors", recent);
    say(by("demo-verdict"), !running && isWell ? "◌ The load stands still." : isWell ? "✓ No client sees an error now." : `✕ ${many(recent, "error", "errors")} in 5 seconds.`);
  },

  showAnswered(answered) {
    const now = performance.now();
    if (answered < this.samples.at(-1)?.answered) this.samples = [];
    this.samples.push({ now, answered });
    while (this.samples.length > 2 && this.samples[1].now < now - ANSWERED_MS) this.samples.shift();
    const [first] = this.samples;
    if (now - first.now > 500) say(by("demo-answered"), perSecond(((answered - first.answered) * 1000) / (now - first.now)));
  },

  // Until each client has come a few times, changes are those that the new algorithm asks for.
  settle(clients) {
    const now = performance.now();
    const { answered } = this.state.load;
    this.kept ??= { from: answered, since: now, isSettled: false };
    if (this.kept.isSettled) return;
    const slowest = Math.max(...Object.values(this.state.servers).map(({ delay_ms: delay }) => delay));
    this.kept.changes = clients.map(({ changes }) => changes);
    this.kept.isSettled = answered >= this.kept.from + SETTLING_VISITS * clients.length && now - this.kept.since > slowest;
  },

  // Clients keep their server under ip_hash; under the others the list only flickers.
  showClients(clients) {
    const [, { algorithm }] = this.pool;
    show(by("demo-clients-part"), algorithm === "ip_hash");
    if (algorithm !== "ip_hash") {
      this.kept = null;
      return;
    }
    this.settle(clients);
    const moves = clients.map(({ changes }, index) => changes - this.kept.changes[index]);
    const all = moves.reduce((sum, number) => sum + number, 0);
    mark(by("demo-clients"), "data-settled", this.kept.isSettled);
    say(by("demo-moved"), !this.kept.isSettled ? "settling" : all === 0 ? "each has kept its own since" : `${many(all, "change", "changes")} of server since`);
    const list = by("demo-clients");
    while (list.children.length > clients.length) list.lastElementChild.remove();
    while (list.children.length < clients.length) list.append(make("li", {}, make("span"), make("b"), make("span", { class: "quiet" })));
    clients.forEach(({ client, server }, index) => {
      const row = list.children[index];
      const moved = moves[index];
      mark(row, "data-client", client);
      mark(row, "data-client-server", server ?? "");
      mark(row, "data-changes", moved);
      say(row.children[0], `${client} → `);
      say(row.children[1], server ?? "-");
      say(row.children[2], moved > 0 ? `moved ${count(moved)}×` : "");
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
    const slow = (input) => {
      this.isDragged = false;
      const delay = input.valueAsNumber;
      if (Number.isInteger(delay)) demo.ask({ servers: { [name]: { delay_ms: delay } } });
    };
    const field = (type, test, max, step, heard) =>
      make("input", { type, min: "0", max: String(max), step: String(step), "data-test": test, "aria-label": `Delay of ${title} in milliseconds`, on: { ...heard, change: ({ target }) => slow(target) } });
    this.delay = field("range", "delay", SLIDER_MAX_MS, SLIDER_STEP_MS, { input: () => this.drag() });
    this.typed = field("number", "delay-typed", DELAY_MAX_MS, 1, {});
    this.element = make("div", { class: "harm" }, this.kill, make("div", { class: "slow" }, make("span", { "aria-hidden": "true" }, "delay"), this.delay, this.typed, make("span", { "aria-hidden": "true" }, "ms")));
  }

  drag() {
    this.isDragged = true;
    this.typed.value = this.delay.value;
  }

  update({ alive, delay_ms: delay }) {
    this.isAlive = alive;
    say(this.kill, alive ? "Kill" : "Revive");
    mark(this.kill, "data-alive", alive);
    mark(this.kill, "aria-label", `${alive ? "Kill" : "Revive"} ${this.title}`);
    if (this.isDragged) return;
    this.delay.value = delay;
    if (document.activeElement !== this.typed) this.typed.value = delay;
  }
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
