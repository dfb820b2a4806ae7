// What the counters were: five minutes of each pool and server, and rates and shares made of them.

const KEPT = 300;
// One window for shares and rates: seen side by side, they agree.
const WINDOW_SECONDS = 4;
const FIELDS = { fresh: 0, active: 1, upstream: 2, downstream: 3 };
const WIDTH = 4;

// One pool or server. Rates are kept by slot, one a status; raw counts only as long as shares need.
class Track {
  constructor() {
    this.rows = new Float32Array(KEPT * WIDTH).fill(NaN);
    this.recent = [];
  }

  take(slot, uptime, counts) {
    const before = this.recent.at(-1);
    this.recent.push({ uptime, ...counts });
    while (this.recent.length > 2 && this.recent[1].uptime < uptime - WINDOW_SECONDS - 0.5) this.recent.shift();
    const elapsed = before ? uptime - before.uptime : 0;
    const pace = (name) => (elapsed > 0 ? Math.max(0, counts[name] - before[name]) / elapsed : NaN);
    this.rows.set([pace("total"), counts.active, pace("upstream"), pace("downstream")], slot * WIDTH);
  }

  // How much a count grew over the last seconds, and over how many exactly.
  growth(name) {
    const last = this.recent.at(-1);
    if (!last) return { amount: 0, elapsed: 0 };
    const first = this.recent.find((sample) => sample.uptime >= last.uptime - WINDOW_SECONDS - 0.5);
    return { amount: Math.max(0, last[name] - first[name]), elapsed: last.uptime - first.uptime };
  }

  rate(name) {
    const { amount, elapsed } = this.growth(name);
    return elapsed > 0 ? amount / elapsed : 0;
  }

  // By how much the last sample is above the one before.
  step(name) {
    const [before, last] = this.recent.slice(-2);
    return last ? Math.max(0, last[name] - before[name]) : 0;
  }
}

// A pool as it grows by its servers: one that is removed takes nothing back of what the pool had.
class PoolTrack extends Track {
  constructor() {
    super();
    this.grown = { total: 0, upstream: 0, downstream: 0 };
  }

  takeServers(slot, uptime, servers, tracks) {
    for (const name of Object.keys(this.grown)) {
      for (const track of tracks) this.grown[name] += track.step(name);
    }
    this.take(slot, uptime, { ...this.grown, active: sumOf(servers).active });
  }
}

// What a pool's servers have together.
function sumOf(servers) {
  const sum = { total: 0, active: 0, upstream: 0, downstream: 0 };
  for (const server of servers) {
    const counts = countsOf(server);
    for (const name of Object.keys(sum)) sum[name] += counts[name];
  }
  return sum;
}

function countsOf({ connections, bytes: moved = { upstream: 0, downstream: 0 } }) {
  const { total, active } = connections;
  return { total, active, upstream: moved.upstream, downstream: moved.downstream };
}

const past = {
  times: [],
  ticks: 0,
  uptime: 0,
  tracks: new Map(),

  track(...names) {
    const key = JSON.stringify(names);
    if (!this.tracks.has(key)) this.tracks.set(key, names[0] === "pool" ? new PoolTrack() : new Track());
    return this.tracks.get(key);
  },

  take(status) {
    // A process that was started anew counts from 0: old counts say nothing about it.
    if (status.uptime_seconds < this.uptime) for (const track of this.tracks.values()) track.recent = [];
    this.uptime = status.uptime_seconds;
    const now = Date.now() / 1000;
    // While the connection was lost nothing is known; a line across would claim the opposite.
    if (this.times.length && now - this.times.at(-1) > 5) this.turn(now - 1);
    const slot = this.turn(now);
    const take = (counts, ...names) => this.track(...names).take(slot, this.uptime, counts);
    for (const [name, listener] of Object.entries(status.listeners)) take(countsOf(listener), "listener", name);
    for (const [pool, { servers }] of Object.entries(status.pools)) {
      for (const [name, server] of Object.entries(servers)) take(countsOf(server), "server", pool, name);
      const tracks = Object.keys(servers).map((name) => this.track("server", pool, name));
      this.track("pool", pool).takeServers(slot, this.uptime, Object.values(servers), tracks);
    }
    if (this.ticks % KEPT === 0) this.forget(status);
  },

  // The next slot, empty.
  turn(time) {
    this.times.push(time);
    if (this.times.length > KEPT) this.times.shift();
    const slot = this.ticks % KEPT;
    this.ticks += 1;
    for (const track of this.tracks.values()) track.rows.fill(NaN, slot * WIDTH, (slot + 1) * WIDTH);
    return slot;
  },

  forget({ listeners, pools }) {
    for (const key of this.tracks.keys()) {
      const [kind, first, second] = JSON.parse(key);
      const isThere =
        kind === "listener" ? first in listeners : first in pools && (kind === "pool" || second in pools[first].servers);
      if (!isThere) this.tracks.delete(key);
    }
  },

  // The field's values, oldest first, as many as there are times.
  values(track, field) {
    const first = this.ticks - this.times.length;
    return this.times.map((_, index) => track.rows[((first + index) % KEPT) * WIDTH + FIELDS[field]]);
  },

  // Percent of the pool's new connections.
  share(pool, server) {
    const all = this.track("pool", pool).growth("total").amount;
    const own = this.track("server", pool, server).growth("total").amount;
    return all > 0 ? Math.min(100, (own / all) * 100) : 0;
  },
};
