// A pool: its doors, its hub and its servers. Large ones are cut short, and drawn without ribbons.

const FAN_MAX = 12;
const CARDS_FIRST = 24;
const CARDS_STEP = 120;
const OPEN_CARDS = 96;
const SOURCES_SHOWN = 3;
const ORDER = { down: 0, draining: 1, maintenance: 2, up: 3 };

class PoolPanel {
  constructor(name, index, isOpen) {
    this.name = name;
    this.index = index;
    this.isOpen = isOpen;
    this.limit = CARDS_FIRST;
    this.cards = new Map();
    this.doors = new Map();
    this.leaving = new Map();
    this.build();
    this.stream = this.element.stream = new Stream(this.fan, this.hub);
    lookedAt.observe(this.element);
  }

  build() {
    const { name } = this;
    this.toggle = make("button", { type: "button", class: "fold", "data-test": "fold", on: { click: () => this.fold() } }, make("span", { class: "chevron", "aria-hidden": "true" }), make("span", { class: "name", title: name }, name));
    this.counts = make("p", { class: "counts", "data-test": "counts" });
    this.strip = make("div", { class: "strip", "aria-hidden": "true" });
    this.algorithm = make("p", { class: "algorithm" });
    this.head = make("header", {}, make("h3", {}, this.toggle), this.counts, this.strip, this.algorithm);
    this.doorList = make("ul", { class: "doors", "aria-label": `Listeners of ${name}` });
    this.hubRate = make("b");
    this.hubActive = make("span", { class: "quiet" });
    this.hub = make("div", { class: "hub" }, make("span", { class: "name" }, name), this.hubRate, make("span", { class: "quiet" }, "new /s"), this.hubActive);
    this.list = make("ul", { class: "servers", "aria-label": `Servers of ${name}` });
    this.more = make("button", { type: "button", class: "plain", "data-test": "more", hidden: "", on: { click: () => this.showMore() } });
    this.sources = make("p", { class: "sources", "data-test": "sources", hidden: "" });
    this.fan = make("div", { class: "fan" }, this.doorList, this.hub, make("div", { class: "column" }, this.list, this.more));
    this.element = make("section", { class: "panel pool", "data-pool-panel": name, "aria-label": `Pool ${name}` }, this.head, this.sources, this.fan);
  }

  fold() {
    this.isOpen = !this.isOpen;
    this.render();
  }

  showMore() {
    this.limit += CARDS_STEP;
    this.render();
  }

  update(status, words) {
    this.pool = status.pools[this.name];
    this.listeners = Object.entries(status.listeners).filter(([, { pool, sni }]) => pool === this.name || Object.values(sni ?? {}).includes(this.name));
    this.gone = status.leaving.filter(({ pool }) => pool === this.name);
    this.words = words;
    this.isSmall = Object.keys(this.pool.servers).length <= FAN_MAX;
    this.render();
  }

  // Whether the filter leaves anything of it.
  get isWanted() {
    return this.words.length === 0 || this.wanted().length > 0;
  }

  wanted() {
    const servers = Object.entries(this.pool.servers);
    if (this.words.length === 0) return servers;
    return servers.filter(([name, { state, address }]) => {
      const text = `${this.name} ${name} ${address} ${STATES[state]?.word ?? state}`.toLowerCase();
      return this.words.every((word) => text.includes(word));
    });
  }

  render() {
    mark(this.toggle, "aria-expanded", this.isOpen);
    show(this.fan, this.isOpen);
    this.renderHead();
    this.renderSources();
    // Of a large installation only what is looked at is drawn; small ones are always up to date.
    if (!this.isOpen || (this.element.isLookedAt === false && !this.isSmall)) return;
    this.renderServers();
    this.renderDoors();
    this.renderStream();
  }

  renderHead() {
    const states = Object.values(this.pool.servers).map(({ state }) => state);
    const tally = Object.keys(ORDER).map((state) => [state, states.filter((each) => each === state).length]);
    const track = past.track("pool", this.name);
    const inState = tally.filter(([, number]) => number > 0).map(([state, number]) => `${count(number)} ${STATES[state].word.toLowerCase()}`);
    say(this.counts, [many(states.length, "server", "servers"), ...inState.reverse(), `${perSecond(track.rate("total"))} new/s`].join(" · "));
    const segments = tally.filter(([, number]) => number > 0).reverse();
    const strip = segments.map(([state, number]) => `${state}:${number}`).join();
    if (this.strip.dataset.tally !== strip) {
      this.strip.dataset.tally = strip;
      this.strip.replaceChildren(...segments.map(([state, number]) => make("i", { "data-state": state, style: `flex-grow: ${number}` })));
    }
    this.renderAlgorithm();
    say(this.hubRate, perSecond(track.rate("total")));
    say(this.hubActive, `${count(states.length ? sumOf(Object.values(this.pool.servers)).active : 0)} active`);
  }

  // Where servers come from that could not be asked; what was found before stays.
  renderSources() {
    const amiss = (this.pool.discovery ?? []).filter(({ last }) => last !== "ok");
    const lines = amiss.slice(0, SOURCES_SHOWN).map(({ source, addresses, last, reason, since_seconds: since }) => `${source}: ${many(addresses, "server", "servers")}, ${last} for ${duration(since)}: ${reason}`);
    if (amiss.length > lines.length) lines.push(`and ${count(amiss.length - lines.length)} more`);
    show(this.sources, lines.length > 0);
    say(this.sources, lines.join("; "));
  }

  renderAlgorithm() {
    const { algorithm } = this.pool;
    if (access.mayChange !== Boolean(this.pick)) {
      this.pick = access.mayChange ? this.algorithmPick() : null;
      this.algorithm.replaceChildren(...(this.pick ? [this.pick] : []));
    }
    mark(this.algorithm, "title", ALGORITHMS[algorithm] ?? algorithm);
    if (!this.pick) say(this.algorithm, algorithm);
    else if (document.activeElement !== this.pick) this.pick.value = algorithm;
  }

  algorithmPick() {
    const names = Object.keys(ALGORITHMS);
    const pick = make("select", { "data-test": "algorithm", "aria-label": `Algorithm of ${this.name}` }, ...names.map((name) => make("option", { value: name }, name)));
    pick.value = this.pool.algorithm;
    pick.addEventListener("change", () => change("PATCH", poolPath(this.name), { algorithm: pick.value }, `${this.name}: ${pick.value}`));
    return pick;
  }

  renderServers() {
    const wanted = this.wanted();
    // What is cut off should not be what needs a look.
    if (wanted.length > this.limit) wanted.sort(([, one], [, other]) => ORDER[one.state] - ORDER[other.state]);
    this.shown = wanted.slice(0, this.limit).map(([name, server]) => {
      const card = this.card(name);
      card.update(server);
      return card;
    });
    for (const name of this.cards.keys()) if (!(name in this.pool.servers)) this.cards.delete(name);
    const hidden = wanted.length - this.shown.length;
    show(this.more, hidden > 0);
    say(this.more, hidden > CARDS_STEP ? `Show ${CARDS_STEP} of ${count(hidden)} more servers` : `Show ${many(hidden, "more server", "more servers")}`);
    mark(this.fan, "class", this.shown.length <= FAN_MAX ? "fan" : "fan dense");
    arrange(this.list, [...this.shown.map(({ element }) => element), ...this.leavers()]);
  }

  card(name) {
    if (!this.cards.has(name)) this.cards.set(name, new ServerCard(this.name, name, Object.keys(this.pool.servers).indexOf(name)));
    return this.cards.get(name);
  }

  // Removed servers, until their last connection is over.
  leavers() {
    const kept = new Map();
    for (const { server, address, connections, drain } of this.gone) {
      const key = `${server} ${address}`;
      const leaver = this.leaving.get(key) ?? make("li", { class: "server leaver", "data-leaving": server }, make("span", { class: "name" }, server), make("p", { class: "why" }));
      const text = drain ? drainText(drain) : `${count(connections.active)} active`;
      say(leaver.lastElementChild, `removed, leaving · ${address} · ${text}`);
      kept.set(key, leaver);
    }
    this.leaving = kept;
    return kept.values();
  }

  renderDoors() {
    const kept = new Map();
    for (const [name, listener] of this.listeners) {
      const door = this.doors.get(name) ?? makeDoor(name);
      const { active, refused } = listener.connections;
      say(door.children[1], listener.bind.join(", "));
      say(door.children[2], `${perSecond(past.track("listener", name).rate("total"))} new/s · ${count(active)} active`);
      say(door.children[3], refused > 0 ? `${count(refused)} refused` : "");
      kept.set(name, door);
    }
    this.doors = kept;
    arrange(this.doorList, [...kept.values()]);
  }

  renderStream() {
    if (!this.stream.isShown || !this.isOpen) return;
    const rates = this.listeners.map(([name]) => past.track("listener", name).rate("total"));
    const all = rates.reduce((sum, rate) => sum + rate, 0);
    const doors = this.listeners.map(([name], index) => ({ element: this.doors.get(name), share: all > 0 ? rates[index] / all : 0, rate: rates[index], ink: "accent", look: all > 0 && rates[index] > 0 ? "flow" : "idle" }));
    this.stream.update(doors, this.shown.length <= FAN_MAX ? this.shown.map(ribbon) : []);
  }
}

function ribbon({ element, share, rate, server, pool, name }) {
  const isFlowing = share > 0 && server.state === "up";
  const look = isFlowing ? "flow" : server.state === "up" ? "idle" : server.state;
  return { element, share: share / 100, rate: isFlowing ? rate : 0, ink: element.style.getPropertyValue("--own").slice(6, -1), look, pool, name };
}

function makeDoor(name) {
  return make("li", { class: "door", "data-listener": name }, make("span", { class: "name", title: name }, name), make("span", { class: "quiet bind" }), make("span", { class: "quiet" }), make("span", { class: "refused" }));
}

const pools = {
  panels: new Map(),
  cards: 0,

  update(status) {
    const words = by("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Map();
    Object.keys(status.pools).forEach((name, index) => {
      const panel = this.panels.get(name) ?? this.open(name, index, status);
      panel.update(status, words);
      kept.set(name, panel);
    });
    for (const [name, panel] of this.panels) if (!kept.has(name)) lookedAt.unobserve(panel.element), motion.streams.delete(panel.stream);
    this.panels = kept;
    const wanted = [...kept.values()].filter((panel) => panel.isWanted);
    arrange(by("pools"), wanted.map(({ element }) => element));
    show(by("nothing"), kept.size > 0 && wanted.length === 0);
  },

  // The first pools stand open, as many as can be taken in; the others are a line each.
  open(name, index, status) {
    const servers = Math.min(CARDS_FIRST, Object.keys(status.pools[name].servers).length);
    const isOpen = this.cards + servers <= OPEN_CARDS && index < 8;
    if (isOpen) this.cards += servers;
    return new PoolPanel(name, index, isOpen);
  },
};
