// Five minutes as charts: new and active connections, stacked by pool or by server, and bytes.

const SERIES_MAX = 7;
const HEIGHT_PX = 190;
// Half of the label of a tick, which stands in the middle below it.
const TICK_ROOM_PX = 24;
// A chart that has just begun shows this much, not five empty minutes.
const SPAN_MIN_SECONDS = 60;
// Steps of an axis in bytes are powers of two, as its units are.
const BYTE_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

// Which lines are drawn: of all pools, or of the servers of one. What is past the palette is summed.
const scope = {
  pool: null,
  isChosen: false,

  lines(status) {
    const tracks = this.pool
      ? Object.keys(status.pools[this.pool].servers).map((name) => [name, past.track("server", this.pool, name)])
      : Object.keys(status.pools).map((name) => [name, past.track("pool", name)]);
    const lines = tracks.slice(0, SERIES_MAX).map(([name, track], index) => ({ name, tracks: [track], ink: seriesInk(index) }));
    const rest = tracks.slice(SERIES_MAX).map(([, track]) => track);
    if (rest.length === 1) lines.push({ name: tracks[SERIES_MAX][0], tracks: rest, ink: seriesInk(7) });
    else if (rest.length) lines.push({ name: `${count(rest.length)} others`, tracks: rest, ink: seriesInk(7) });
    return lines;
  },

  update(status) {
    const names = Object.keys(status.pools);
    if (this.pool !== null && !names.includes(this.pool)) this.pool = null;
    if (!this.isChosen) this.pool = names.length === 1 ? names[0] : null;
    const key = JSON.stringify(names);
    if (this.key === key) return;
    this.key = key;
    const option = (value, text) => make("option", { value }, text);
    by("scope").replaceChildren(option("", "all pools, by pool"), ...names.map((name, index) => option(index, `${name}, by server`)));
    this.names = names;
    by("scope").value = this.pool === null ? "" : String(names.indexOf(this.pool));
  },
};

by("scope").addEventListener("change", () => {
  const { value } = by("scope");
  scope.isChosen = true;
  scope.pool = value === "" ? null : scope.names[Number(value)];
  live.again();
});

class Chart {
  constructor(id, title, unit, format, steps) {
    this.root = by(id);
    this.format = format;
    this.steps = steps;
    this.now = make("b", {});
    this.plotted = make("div", { class: "plot" });
    this.legend = make("ul", { class: "legend" });
    this.root.append(make("figcaption", {}, make("span", {}, title), this.now, make("span", { class: "quiet" }, unit)), this.plotted, this.legend);
    new ResizeObserver(() => this.fit()).observe(this.plotted);
    new IntersectionObserver(([{ isIntersecting }]) => {
      this.isSeen = isIntersecting;
      if (isIntersecting && this.waiting) this.put(...this.waiting);
    }).observe(this.root);
  }

  // `lines` have names and inks, `values` a list each; stacked ones are summed from the last up.
  put(lines, values, isStacked) {
    this.waiting = [lines, values, isStacked];
    if (!this.isSeen) return;
    this.values = values;
    const data = isStacked ? stacked(values) : values;
    const shape = JSON.stringify([lines.map(({ name, ink: colour }) => [name, colour]), isStacked]);
    if (this.shape !== shape) {
      this.shape = shape;
      this.make(lines, isStacked);
    }
    this.plot.setData([past.times, ...data.map((list) => list.map((value) => (Number.isNaN(value) ? null : value)))]);
    const last = past.times.length - 1;
    say(this.now, this.format(isStacked ? data[0]?.[last] || 0 : values.reduce((sum, list) => sum + (list[last] || 0), 0)));
    if (this.at === undefined) this.tell(last);
  }

  make(lines, isStacked) {
    this.plot?.destroy();
    this.legend.replaceChildren(...lines.map(({ name, ink: colour }) => make("li", { style: `--own: var(--${colour})` }, make("span", { class: "name", title: name }, name), make("b"))));
    const axis = { stroke: ink("quiet"), font: "12px system-ui, sans-serif", grid: { stroke: ink("line"), width: 1 }, ticks: { show: false } };
    const series = lines.map(({ ink: colour }, index) => ({
      stroke: ink(colour),
      width: 1.5,
      fill: isStacked ? translucent(ink(colour)) : undefined,
      dash: !isStacked && index % 2 ? [6, 4] : undefined,
      points: { show: false },
    }));
    this.plot = new uPlot(
      {
        width: Math.max(120, this.plotted.clientWidth),
        height: HEIGHT_PX,
        legend: { show: false },
        padding: [8, 4, 0, 0],
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { x: { range: span }, y: { range: (_, __, high) => [0, Math.max(high * 1.1, 1)] } },
        axes: [
          { ...axis, size: 28, space: 70, values: clockTicks },
          { ...axis, size: 58, space: 36, incrs: this.steps, values: (_, ticks) => ticks.map((tick) => this.format(tick)) },
        ],
        bands: isStacked ? lines.slice(1).map((_, index) => ({ series: [index + 1, index + 2] })) : undefined,
        series: [{}, ...series],
        hooks: { setCursor: [({ cursor }) => this.point(cursor.idx)] },
      },
      [[], ...lines.map(() => [])],
      this.plotted,
    );
  }

  // The legend tells the values under the pointer, else the latest.
  point(index) {
    this.at = index ?? undefined;
    this.tell(this.at ?? past.times.length - 1);
  }

  tell(index) {
    this.values?.forEach((list, line) => {
      const value = list[index];
      const shown = this.legend.children[line]?.lastElementChild;
      if (shown) say(shown, Number.isFinite(value) ? this.format(value) : "-");
    });
  }

  fit() {
    const width = this.plotted.clientWidth;
    if (this.plot && width > 0 && this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT_PX });
  }

  redress() {
    this.shape = null;
    if (this.waiting) this.put(...this.waiting);
  }
}

// The label of a tick at the right edge would be cut off: there is none.
function clockTicks(plot, ticks) {
  const shown = ticks[1] - ticks[0] < 60 ? 8 : 5;
  const hasRoom = (tick) => plot.bbox.width / devicePixelRatio - plot.valToPos(tick, "x") >= TICK_ROOM_PX;
  return ticks.map((tick) => (hasRoom(tick) ? clockTime(new Date(tick * 1000)).slice(0, shown) : ""));
}

function span() {
  const now = Date.now() / 1000;
  return [Math.max(now - KEPT, Math.min(past.times[0] ?? now, now - SPAN_MIN_SECONDS)), now];
}

// Each line becomes the sum of itself and those after it, so that the first is the total.
function stacked(values) {
  const sums = values.map((list) => [...list]);
  for (let line = sums.length - 2; line >= 0; line -= 1) {
    sums[line] = sums[line].map((value, index) => sumKnown(value, sums[line + 1][index]));
  }
  return sums;
}

function sumKnown(one, other) {
  if (Number.isNaN(one)) return other;
  return Number.isNaN(other) ? one : one + other;
}

function translucent(colour) {
  return colour.replace("rgb(", "rgba(").replace(")", ", 0.28)");
}

const charts = {
  fresh: new Chart("chart-new", "New connections", "/s", perSecond),
  active: new Chart("chart-active", "Active connections", "", count),
  bytes: new Chart("chart-bytes", "Bytes", "/s, both ways", bytes, BYTE_STEPS),

  update(status) {
    if (document.hidden) return;
    scope.update(status);
    const lines = scope.lines(status);
    const of = (field) => lines.map(({ tracks }) => tracks.map((track) => past.values(track, field)).reduce((sum, list) => sum.map((value, index) => sumKnown(value, list[index]))));
    this.fresh.put(lines, of("fresh"), true);
    this.active.put(lines, of("active"), true);
    const tracks = scope.pool ? [past.track("pool", scope.pool)] : Object.keys(status.pools).map((name) => past.track("pool", name));
    const total = (field) => tracks.map((track) => past.values(track, field)).reduce((sum, list) => sum.map((value, index) => sumKnown(value, list[index])), past.times.map(() => NaN));
    const ways = [{ name: "downstream, to clients", ink: "series-1" }, { name: "upstream, to servers", ink: "series-4" }];
    this.bytes.put(ways, [total("downstream"), total("upstream")], false);
  },

  redress() {
    for (const chart of [this.fresh, this.active, this.bytes]) chart.redress();
  },
};
