// The stream of status and events, what is done with each, and telling when it breaks.

const SILENCE_MS = 3500;
const RETRY_MS = 2000;

// A key of digits alone, as JSON without blanks has it; within strings quotes are escaped.
const DIGITS_KEY = /(?<=[{,])"(\d+)":/g;
const MARK = "\u2060";

// The status with names in the order of the configuration. JavaScript puts names of digits alone
// first, so such keys are marked while they are read, and their objects keep an order of their own.
function readStatus(text) {
  if (text.search(DIGITS_KEY) < 0) return JSON.parse(text);
  const status = JSON.parse(text.replace(DIGITS_KEY, `"${MARK}$1":`));
  for (const pool of Object.values(status.pools)) pool.servers = inOrder(pool.servers);
  return { ...status, listeners: inOrder(status.listeners), pools: inOrder(status.pools) };
}

function inOrder(marked) {
  const entries = Object.entries(marked).map(([name, value]) => [name.replace(MARK, ""), value]);
  const names = entries.map(([name]) => name);
  return new Proxy(Object.fromEntries(entries), { ownKeys: () => names });
}

const live = {
  source: null,
  status: null,
  heard: performance.now(),
  lostSince: null,
  // Whether the stream has said something.
  isTold: false,

  connect() {
    this.source?.close();
    const source = new EventSource("/api/v1/events");
    this.source = source;
    this.tried = performance.now();
    nodes.isAsked = false;
    happenings.isLive = false;
    source.addEventListener("status", ({ data }) => this.take(readStatus(data)));
    source.addEventListener("event", ({ data }) => {
      this.alive();
      happenings.take(JSON.parse(data));
    });
    // The browser's own retry ends at an answer such as 503: it is done here, always alike.
    source.addEventListener("error", () => {
      source.close();
      // A stream that ends well is most often an upgrade: the next process answers at once, or nobody does.
      if (this.isTold && this.lostSince === null) {
        this.isTold = false;
        this.connect();
      } else {
        this.lose();
      }
    });
  },

  take(status) {
    this.alive();
    this.status = status;
    if (!access.isKnown || access.isOpen !== status.demo) {
      access.isKnown = true;
      access.isOpen = status.demo;
      access.changed();
    }
    past.take(status);
    nodes.update();
    this.show();
    // What comes with the first status are old events.
    setTimeout(() => (happenings.isLive = true), 1000);
  },

  show() {
    if (document.hidden) return;
    showHeader(this.status);
    notices.update(this.status);
    demo.update(this.status);
    // In a demonstration the cards wait for what may be done to the servers.
    if (!this.status.demo || demo.state) pools.update(this.status);
    charts.update(this.status);
  },

  // The last status once more: something else has changed that it is shown by.
  again() {
    if (this.status) this.show();
  },

  alive() {
    this.isTold = true;
    this.heard = performance.now();
    if (this.lostSince === null) return;
    this.lostSince = null;
    show(by("lost"), false);
    mark(document.body, "data-lost", null);
    motion.isStalled = false;
    speak("Connected to evenkeel again.");
  },

  lose() {
    if (this.lostSince !== null) return;
    this.lostSince = Date.now();
    say(by("lost-since"), `Since ${clockTime(new Date())}; tried again every ${RETRY_MS / 1000} seconds. What you see is from then.`);
    show(by("lost"), true);
    showUnknown();
    mark(document.body, "data-lost", "");
    motion.isStalled = true;
  },

  // A peer that stops without a word sends no error: silence counts as well.
  watch() {
    const now = performance.now();
    const isSilent = now - this.heard > SILENCE_MS;
    if (isSilent && !document.hidden) this.lose();
    if (this.lostSince === null) return;
    say(by("lost-for"), `(${duration((Date.now() - this.lostSince) / 1000)})`);
    if (now - this.tried > RETRY_MS && (isSilent || this.source.readyState === EventSource.CLOSED)) this.connect();
  },
};

by("filter").addEventListener("input", () => live.again());
document.addEventListener("visibilitychange", () => {
  live.heard = performance.now();
  if (!document.hidden) live.again();
});
access.watchers.push(() => live.again());

const themes = {
  names: ["auto", "light", "dark"],

  set(name) {
    mark(document.documentElement, "data-theme", name === "auto" ? null : name);
    by("theme").textContent = `Theme: ${name}`;
    this.name = name;
    this.redress();
  },

  next() {
    const name = this.names[(this.names.indexOf(this.name) + 1) % this.names.length];
    localStorage.setItem("theme", name);
    this.set(name);
  },

  redress() {
    inks.clear();
    charts.redress();
  },
};

by("theme").addEventListener("click", () => themes.next());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themes.redress());
themes.set(themes.names.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");

takeTokenFromAddress();
access.changed();
live.connect();
motion.begin();
setInterval(() => live.watch(), 500);
