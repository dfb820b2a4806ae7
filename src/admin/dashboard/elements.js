// Elements made, filled and kept. Text is always a text node, so names that users chose stay names.

const SVG = "http://www.w3.org/2000/svg";

function by(id) {
  return document.getElementById(id);
}

// `on` in the attributes is a map from events to functions; null attributes are left out.
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, heard] of Object.entries(value)) element.addEventListener(event, heard);
    } else if (value !== null) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children);
  return element;
}

// The three below write only what changes: a page of many servers is touched where it moved.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, name, value) {
  const text = value === null ? null : String(value);
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

// Brings the children of `parent` to `wanted`, in order. What stands right already is not touched,
// because moving an element takes its focus away.
function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}

// Colours are read where they are drawn by hand: the style sheet alone knows them, for both themes.
const probe = make("span", { hidden: "" });
const inks = new Map();

function ink(name) {
  if (!inks.has(name)) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(--${name})`;
    inks.set(name, getComputedStyle(probe).color);
  }
  return inks.get(name);
}

function seriesInk(index) {
  return `series-${(index % 8) + 1}`;
}

// A short message that goes by itself; read aloud, too.
function toast(text, isWrong = false) {
  const element = make("p", { class: isWrong ? "toast wrong" : "toast" }, text);
  by("toasts").append(element);
  setTimeout(() => element.remove(), isWrong ? 10000 : 4000);
}

// Read aloud only.
function speak(text) {
  const spoken = by("spoken");
  spoken.append(make("p", {}, text));
  while (spoken.children.length > 5) spoken.firstElementChild.remove();
}

const stillness = matchMedia("(prefers-reduced-motion: reduce)");
