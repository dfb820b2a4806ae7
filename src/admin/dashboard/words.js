// Numbers, times and names as people read them. Knows nothing of the page.

const ALGORITHMS = {
  round_robin: "In turn, by weight. Blind to slow servers.",
  least_connections: "To whoever holds the fewest now, by weight.",
  power_of_two: "Of two at random, the less loaded.",
  random: "At random, by weight. Blind to slow servers.",
  ip_hash: "The same client always to the same server.",
  least_time: "To whoever connects fastest for its load.",
  first: "Fills the first up to its limit, then the next.",
};

// A word and a shape for each state: the colour is never the only sign.
const STATES = {
  up: { word: "Up", sign: "●" },
  down: { word: "Down", sign: "✕" },
  draining: { word: "Draining", sign: "◐" },
  maintenance: { word: "Maintenance", sign: "■" },
};

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function count(number) {
  return Math.abs(number) < 100000 ? whole.format(number) : short.format(number);
}

// Per second: small ones keep a digit, so that 0.4 is not told as 0.
function perSecond(number) {
  if (number >= 10) return count(number);
  return number < 0.05 ? "0" : number.toFixed(1);
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || number >= 100 ? 0 : 1;
  return `${number.toFixed(digits)} ${units[unit]}`;
}

function percent(number) {
  return number > 0 && number < 10 ? number.toFixed(1) : number.toFixed(0);
}

function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
  return `${Math.floor(total / 86400)} d ${Math.floor((total % 86400) / 3600)} h`;
}

function milliseconds(number) {
  if (number === null || number === undefined) return "-";
  if (number >= 1000) return `${(number / 1000).toFixed(1)} s`;
  return number < 10 ? `${number.toFixed(1)} ms` : `${count(number)} ms`;
}

const clockFace = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function clockTime(date) {
  return Number.isNaN(date.getTime()) ? "-" : clockFace.format(date);
}

function many(number, one, more) {
  return `${count(number)} ${number === 1 ? one : more}`;
}
