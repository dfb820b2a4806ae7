// Who may change things, and asking for it. The token lives in this tab alone.

const access = {
  token: sessionStorage.getItem("token"),
  isOpen: false,
  isKnown: false,
  watchers: [],

  get mayChange() {
    return this.isOpen || this.token !== null;
  },

  changed() {
    for (const watcher of this.watchers) watcher();
  },

  set(token) {
    this.token = token;
    if (token === null) sessionStorage.removeItem("token");
    else sessionStorage.setItem("token", token);
    this.changed();
  },
};

// The answer's body; throws an Error with the text for people, and `status` where there was one.
async function call(method, path, body, token = access.token) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Error("evenkeel does not answer");
  }
  const text = await response.text();
  if (response.ok) return text ? JSON.parse(text) : null;
  const wrong = new Error(told(text) ?? `evenkeel answered ${response.status}`);
  wrong.status = response.status;
  throw wrong;
}

function told(text) {
  try {
    return JSON.parse(text).error ?? null;
  } catch {
    return null;
  }
}

// A change that was asked for by hand: tells how it went. Null where it was refused.
async function change(method, path, body, done, tell = (text) => toast(text, true)) {
  try {
    const answer = await call(method, path, body);
    if (done) toast(done);
    return answer;
  } catch (wrong) {
    tell(wrong.message);
    if (wrong.status === 401 || wrong.status === 403) access.set(null);
    return null;
  }
}

function poolPath(pool) {
  return `/api/v1/pools/${encodeURIComponent(pool)}`;
}

function serverPath(pool, server) {
  return `${poolPath(pool)}/servers/${encodeURIComponent(server)}`;
}

async function tryToken(token) {
  await call("GET", "/api/v1/status", undefined, token);
  access.set(token);
}

// `#token=...` is taken out of the address at once: addresses are shared, and kept by the browser.
function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return;
  history.replaceState(null, "", location.pathname + location.search);
  tryToken(token).then(
    () => toast("Unlocked."),
    (wrong) => toast(`The token in the address was not taken: ${wrong.message}`, true),
  );
}

function openDialog(dialog) {
  dialog.showModal();
}

by("unlock").addEventListener("click", () => {
  if (access.token !== null) {
    access.set(null);
    toast("Locked.");
    return;
  }
  by("key-token").value = "";
  say(by("key-wrong"), "");
  openDialog(by("key"));
});

by("key-cancel").addEventListener("click", () => by("key").close());

by("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await tryToken(by("key-token").value.trim());
    by("key").close();
    toast("Unlocked.");
  } catch (wrong) {
    say(by("key-wrong"), wrong.message);
  }
});

access.watchers.push(() => {
  show(by("unlock"), access.isKnown && !access.isOpen);
  say(by("unlock"), access.token === null ? "Unlock" : "Lock");
  show(by("hint"), access.isKnown && (access.isOpen || !access.mayChange));
  say(by("hint"), access.isOpen ? "Kill a server or make it slow, and watch where the connections go." : "Read-only here. To drain servers, set weights and pick algorithms: Unlock, with the token of admin.http_token_file.");
});
