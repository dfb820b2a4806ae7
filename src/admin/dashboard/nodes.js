// This node and those of admin.nodes side by side: how each is, and each server as each of them sees
// it. This node asks the others; the page asks this one alone, and shows nothing where there are none.

const NODES_PATH = "/api/v1/nodes";
const NODES_MS = 1000;
// Beyond them those rows are kept that differ.
const NODE_ROWS_MAX = 100;

const nodes = {
  isPolled: false,
  isAsked: false,
  // By name: what was counted when, and the rate since the time before.
  counted: new Map(),

  // With each status. Whether there are any is asked once a connect: only another process knows others.
  update() {
    if (this.isAsked || this.isPolled) return;
    this.isAsked = true;
    this.watch();
  },

  async watch() {
    this.isPolled = true;
    while (await this.poll()) await new Promise((resolve) => setTimeout(resolve, NODES_MS));
    this.isPolled = false;
  },

  // Whether to ask again.
  async poll() {
    if (document.hidden || live.lostSince !== null) return true;
    try {
      // Looking needs no token.
      const answer = await call("GET", NODES_PATH, undefined, null);
      this.show(answer);
      return answer.nodes.length > 0;
    } catch (wrong) {
      // An older process has no such path; a lost connection is told by the banner already.
      return wrong.status !== 404;
    }
  },

  show({ nodes: list, pools: groups, differences }) {
    show(by("nodes"), list.length > 0);
    if (list.length === 0) return;
    lay(by("nodes-list"), list.map((node) => this.cells(node)));
    lay(by("nodes-columns"), [["Server", ...list.map(({ name }) => name)].map((said) => ({ said }))], "col");
    const rows = groups.flatMap(({ name: pool, servers }) => servers.map((server) => ({ ...server, pool })));
    const shown = pick(rows);
    lay(by("nodes-servers"), shown.map((row) => serverCells(row)));
    show(by("nodes-more"), shown.length < rows.length);
    say(by("nodes-more"), `and ${many(rows.length - shown.length, "more server", "more servers")}; those that differ come first`);
    const texts = differences.join("\n");
    if (by("nodes-differences").dataset.lines !== texts) {
      by("nodes-differences").dataset.lines = texts;
      by("nodes-differences").replaceChildren(...differences.map((line) => make("li", {}, line)));
    }
  },

  cells(node) {
    const name = { said: node.name, note: node.is_this ? "this node" : "" };
    if (node.error !== undefined) {
      const silent = { said: "No answer", sign: "✕", note: node.error, state: "down" };
      return [name, silent, ...Array(4).fill({ said: "-" })];
    }
    const { version, ready, standing, not_ready: reasons, uptime_seconds: uptime, connections } = node;
    const state = ready ? { said: "Ready", sign: "✓", state: "up" } : { said: capital(standing), sign: "!", state: "down", note: reasons.join("; ") };
    const rate = this.rate(node.name, connections.total, uptime);
    return [name, state, { said: version }, { said: duration(uptime) }, { said: count(connections.active) }, { said: rate === null ? "-" : perSecond(rate) }];
  },

  // New connections a second, by the node's own clock. An answer that was told before counts once.
  rate(name, total, uptime) {
    const before = this.counted.get(name);
    if (before?.uptime === uptime) return before.rate;
    const isLater = before && uptime > before.uptime && total >= before.total;
    const rate = isLater ? (total - before.total) / (uptime - before.uptime) : null;
    this.counted.set(name, { total, uptime, rate });
    return rate;
  },
};

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function differs({ nodes: seen }) {
  return seen.some((cell) => cell?.odd);
}

// As many as are shown, in their order.
function pick(rows) {
  if (rows.length <= NODE_ROWS_MAX) return rows;
  const first = [...rows.filter(differs), ...rows.filter((row) => !differs(row))];
  const kept = new Set(first.slice(0, NODE_ROWS_MAX));
  return rows.filter((row) => kept.has(row));
}

function serverCells({ pool, name, nodes: seen }) {
  return [{ said: `${pool}/${name}` }, ...seen.map(seenCell)];
}

function seenCell(seen) {
  if (seen === null) return { said: "?" };
  // What another node says may be any word, also one that each object knows.
  const known = Object.hasOwn(STATES, seen.state) ? STATES[seen.state] : null;
  const { word, sign } = known ?? { word: capital(seen.state), sign: "!" };
  const active = seen.active === null ? "" : ` ${count(seen.active)}`;
  return { said: `${word}${active}`, sign, state: seen.state, note: seen.odd ? "differs" : "", isOdd: seen.odd };
}

// Rows of cells in a part of a table; the first of each row is its heading, or all where it is a row of
// columns. Only what changes is written.
function lay(part, rows, scope = "row") {
  const wanted = rows.map((cells, at) => {
    const row = part.children[at] ?? make("tr");
    const put = cells.map((cell, place) => {
      const isHeading = place === 0 || scope === "col";
      const element = row.children[place] ?? make(isHeading ? "th" : "td", isHeading ? { scope } : {}, make("span", { class: "sign", "aria-hidden": "true" }), make("span", { class: "said" }), make("span", { class: "note" }));
      return fillCell(element, cell);
    });
    arrange(row, put);
    return row;
  });
  arrange(part, wanted);
}

function fillCell(element, { said, sign = "", note = "", state = null, isOdd = false }) {
  [sign, said, note].forEach((text, at) => say(element.children[at], text));
  mark(element, "data-state", state);
  mark(element, "data-odd", isOdd || null);
  return element;
}
