// The fan-out as a picture: ribbons as wide as the share, and dots that run along them.

const RIBBONS_PX = 54;
const DOTS_A_SECOND = 36;
const FLIGHT_MS = 1400;
const FRAME_MS = 33;

// Ribbons between three columns: doors, hub, servers. A wish is { element, share 0-1, rate, ink, look }.
class Stream {
  constructor(fan, hub) {
    this.fan = fan;
    this.hub = hub;
    this.edges = new Map();
    this.dots = [];
    this.svg = draw("svg", { class: "ribbons", "aria-hidden": "true" });
    this.canvas = make("canvas", { class: "dots", "aria-hidden": "true" });
    fan.prepend(this.svg, this.canvas);
    this.wishes = { doors: [], servers: [] };
    new ResizeObserver(() => this.lay()).observe(fan);
  }

  update(doors, servers) {
    this.wishes = { doors, servers };
    this.lay();
  }

  // The picture is left out where the columns stand below each other, or do not stand at all.
  get isShown() {
    return this.svg.clientWidth > 0;
  }

  lay() {
    if (!this.isShown) return;
    const frame = this.fan.getBoundingClientRect();
    this.size = { width: frame.width, height: frame.height };
    const box = (element) => {
      const { left, right, top, height } = element.getBoundingClientRect();
      return { left: left - frame.left, right: right - frame.left, middle: top - frame.top + height / 2 };
    };
    const hub = box(this.hub);
    const seen = new Set();
    this.side(this.wishes.doors, hub.middle, seen, (wish, at) => {
      const door = box(wish.element);
      return { from: [door.right, door.middle], to: [hub.left, at] };
    });
    this.side(this.wishes.servers, hub.middle, seen, (wish, at) => {
      const card = box(wish.element);
      return { from: [hub.right, at], to: [card.left, card.middle] };
    });
    for (const [key, edge] of this.edges) {
      if (seen.has(key)) continue;
      edge.path.remove();
      this.edges.delete(key);
    }
  }

  // Ribbons lie side by side at the hub, in the order of what they lead to.
  side(wishes, middle, seen, place) {
    let at = middle - RIBBONS_PX / 2;
    for (const wish of wishes) {
      const width = wish.share * RIBBONS_PX;
      const { from, to } = place(wish, at + width / 2);
      at += width;
      seen.add(wish.element);
      this.edge(wish, from, to, width);
    }
  }

  edge(wish, from, to, width) {
    let edge = this.edges.get(wish.element);
    if (!edge) {
      edge = { path: draw("path"), owed: 0 };
      this.svg.append(edge.path);
      this.edges.set(wish.element, edge);
    }
    const middle = (from[0] + to[0]) / 2;
    mark(edge.path, "d", `M${spot(from)} C${spot([middle, from[1]])} ${spot([middle, to[1]])} ${spot(to)}`);
    mark(edge.path, "data-look", wish.look);
    edge.path.style.strokeWidth = wish.look === "flow" ? `${Math.max(1, width).toFixed(1)}px` : "";
    edge.path.style.stroke = wish.look === "flow" ? `var(--${wish.ink})` : "";
    Object.assign(edge, { from, to, middle, width, rate: wish.rate, ink: wish.ink });
  }

  // New dots for the time that passed, in proportion to the rates, and all of them drawn.
  frame(now, elapsed) {
    const total = this.wishes.servers.reduce((sum, { rate }) => sum + rate, 0);
    const scale = Math.min(1, DOTS_A_SECOND / Math.max(total, 1e-9));
    for (const edge of this.edges.values()) {
      edge.owed += (edge.rate * scale * elapsed) / 1000;
      while (edge.owed >= 1) {
        edge.owed -= 1;
        const born = now - Math.random() * elapsed;
        this.dots.push({ edge, born, aside: (Math.random() - 0.5) * 0.7 });
      }
    }
    this.dots = this.dots.filter((dot) => now - dot.born < FLIGHT_MS);
    this.paint(now);
  }

  paint(now) {
    const { width, height } = this.size ?? { width: 0, height: 0 };
    const density = Math.min(2, devicePixelRatio || 1);
    const [wide, high] = [Math.round(width * density), Math.round(height * density)];
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    const brush = this.canvas.getContext("2d");
    brush.setTransform(density, 0, 0, density, 0, 0);
    brush.clearRect(0, 0, width, height);
    for (const { edge, born, aside } of this.dots) {
      const done = (now - born) / FLIGHT_MS;
      const [x, y] = along(edge, done);
      brush.globalAlpha = Math.min(1, done * 6, (1 - done) * 6);
      brush.fillStyle = ink(edge.ink);
      brush.beginPath();
      brush.arc(x, y + aside * edge.width, 2.2, 0, 7);
      brush.fill();
    }
  }

  clear() {
    this.dots = [];
    this.paint(0);
  }
}

function spot([x, y]) {
  return `${x.toFixed(1)},${y.toFixed(1)}`;
}

function along({ from, to, middle }, done) {
  const left = 1 - done;
  const [a, b, c, d] = [left ** 3, 3 * left * left * done, 3 * left * done * done, done ** 3];
  return [a * from[0] + (b + c) * middle + d * to[0], (a + b) * from[1] + (c + d) * to[1]];
}

// One clock for all pictures; it stands still where nobody looks, and for who wants no motion.
const motion = {
  streams: new Set(),
  isStalled: false,
  before: 0,

  begin() {
    requestAnimationFrame((now) => this.tick(now));
  },

  tick(now) {
    const elapsed = now - this.before;
    if (elapsed >= FRAME_MS) {
      this.before = now;
      const isStill = stillness.matches || this.isStalled;
      for (const stream of this.streams) {
        if (isStill || !stream.isShown) stream.dots.length && stream.clear();
        else stream.frame(now, Math.min(elapsed, 200));
      }
    }
    // Asked for seldom while nothing moves: an idle page should cost nothing.
    if (stillness.matches || this.streams.size === 0) setTimeout(() => this.begin(), 500);
    else this.begin();
  },
};

const lookedAt = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) motion.streams.add(target.stream);
    else motion.streams.delete(target.stream);
    target.isLookedAt = isIntersecting;
  }
});
