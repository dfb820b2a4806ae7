//! A real browser: headless Chromium, driven over WebDriver through Debian's `chromedriver`.
//!
//! The client is as small as the protocol lets it be: one JSON request a connection. What is looked
//! for is waited for, because a page is never done at once. Both programs are ended by their own
//! process ids; the profile is a temporary folder.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::lines::Lines;
use super::program::send_signal;
use super::tools::tool;
use super::{DEADLINE, eventually_some};

/// Replaces the stream of events by one that the test fills: `staged.status({...})`, or
/// `staged.text('...')` with the text of a status.
const STAGE: &str = "
    window.EventSource = class extends EventTarget {
        static CLOSED = 2;
        readyState = 1;
        constructor() { super(); window.staged = this; }
        close() {}
        text(data) { this.dispatchEvent(new MessageEvent('status', { data })); }
        status(value) { this.text(JSON.stringify(value)); }
        happening(value) {
            this.dispatchEvent(new MessageEvent('event', { data: JSON.stringify(value) }));
        }
    };";

/// How often the driver is started before a test gives up.
const DRIVER_TRIES: usize = 3;

/// The key under which WebDriver gives an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys as WebDriver writes them.
pub(crate) const TAB: &str = "\u{e004}";
/// The same.
pub(crate) const ENTER: &str = "\u{e007}";
/// The same.
pub(crate) const RIGHT: &str = "\u{e014}";
/// The same.
pub(crate) const DOWN: &str = "\u{e015}";

/// One window of one browser.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    /// `/session/ID`; empty until there is one.
    session: String,
    /// The browser's own process.
    pid: Option<u32>,
    /// Its profile.
    _folder: TempDir,
    said: Lines,
}

impl Browser {
    /// Starts one that wants no motion, which costs the machine less.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (driver, port, said) = driver();
        let mut browser = Self {
            driver,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            pid: None,
            _folder: folder,
            said,
        };
        browser.begin();
        // The browser's own first page asks for a hundred things that are not the test's.
        browser.open("about:blank");
        browser.requests();
        browser
    }

    fn begin(&mut self) {
        let profile = format!("--user-data-dir={}", self._folder.path().display());
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {
                "binary": tool("chromium"),
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--no-first-run", "--disable-background-networking", "--disable-extensions",
                    "--force-prefers-reduced-motion", "--window-size=1280,900", profile],
            },
        }}});
        let session = self.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session's id");
        self.session = format!("/session/{id}");
        let pid = &session["capabilities"]["goog:processID"];
        self.pid = pid.as_u64().and_then(|pid| u32::try_from(pid).ok());
    }

    /// Opens an address and waits until it is loaded.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// The first element that a CSS selector finds, once there is one.
    #[track_caller]
    pub(crate) fn find(&self, css: &str) -> Element<'_> {
        eventually_some(&format!("an element {css}"), || {
            self.find_all(css).into_iter().next()
        })
    }

    /// Every element that a CSS selector finds now.
    #[track_caller]
    pub(crate) fn find_all(&self, css: &str) -> Vec<Element<'_>> {
        let found = self.ask(
            "POST",
            "/elements",
            &json!({"using": "css selector", "value": css}),
        );
        let ids = found.as_array().expect("a list").iter();
        ids.filter_map(|each| each[ELEMENT].as_str())
            .map(|id| Element {
                browser: self,
                path: format!("/element/{id}"),
            })
            .collect()
    }

    /// Runs a script in the page; what it returns.
    #[track_caller]
    pub(crate) fn execute(&self, script: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    /// Waits until a JavaScript expression is truthy; what it is then.
    #[track_caller]
    pub(crate) fn wait_for(&self, expression: &str) -> Value {
        eventually_some(expression, || {
            let value = self.execute(&format!("return ({expression})"));
            let is_truthy =
                !matches!(value, Value::Null | Value::Bool(false)) && value != 0 && value != "";
            is_truthy.then_some(value)
        })
    }

    /// Presses keys, one after the other, wherever the focus is.
    #[track_caller]
    pub(crate) fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.ask("POST", "/actions", &actions);
    }

    /// Opens a page whose stream of events is the test's own; nothing has come through it yet.
    #[track_caller]
    pub(crate) fn open_staged(&self, url: &str) {
        let script = json!({ "source": STAGE });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &script);
        self.open(url);
        self.wait_for("!!window.staged");
    }

    /// A command of the browser's own protocol.
    #[track_caller]
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.ask(
            "POST",
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Gives the page this much room, in CSS pixels; a window cannot be as narrow as a phone.
    #[track_caller]
    pub(crate) fn set_size(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the user's system prefers: `light` or `dark`.
    #[track_caller]
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Writes a picture of what the window shows, as PNG; false where the browser gives none.
    pub(crate) fn screenshot(&self, file: &Path) -> bool {
        let path = format!("{}/screenshot", self.session);
        let answer = self.exchange("GET", &path, &Value::Null);
        let picture = answer.ok().map(|(_, answer)| answer["value"].clone());
        let picture = picture.as_ref().and_then(Value::as_str);
        picture.is_some_and(|text| fs::write(file, from_base64(text)).is_ok())
    }

    /// Errors in the browser's console since the last call: scripts, policies, requests that failed.
    #[track_caller]
    pub(crate) fn console_errors(&self) -> Vec<String> {
        let entries = self.log("browser");
        let entries = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// The address of each request that the page has made since the last call.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.log("performance");
        entries
            .iter()
            .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
            .filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|entry| {
                Some(
                    entry["message"]["params"]["request"]["url"]
                        .as_str()?
                        .to_owned(),
                )
            })
            .collect()
    }

    #[track_caller]
    fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.ask("POST", "/se/log", &json!({ "type": kind }));
        entries.as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("{}{path}", self.session), body)
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        match self.exchange(method, path, body) {
            Ok((200, answer)) => answer["value"].clone(),
            Ok((status, answer)) => panic!("{method} {path}: {status}: {answer}"),
            Err(error) => panic!("{method} {path}: {error}; {}", self.said.text()),
        }
    }

    /// One request on a connection of its own.
    fn exchange(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address)?;
        // A browser that starts on two busy cores takes its time.
        stream.set_read_timeout(Some(DEADLINE * 3))?;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        read_answer(&mut stream)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current()
                .name()
                .unwrap_or("test")
                .replace("::", "-");
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
            if self.screenshot(&file) {
                eprintln!("--- what the browser showed: {}", file.display());
            }
        }
        // The driver ends the browser with the session; what is left is ended by hand.
        if !self.session.is_empty() {
            drop(self.exchange("DELETE", &self.session, &Value::Null));
        }
        if let Some(pid) = self
            .pid
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
        {
            drop(
                Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .status(),
            );
        }
        if matches!(self.driver.try_wait(), Ok(None)) && !std::thread::panicking() {
            send_signal(self.driver.id(), "TERM");
        } else {
            drop(self.driver.kill());
        }
        drop(self.driver.wait());
    }
}

/// Something in the page.
#[derive(Debug)]
pub(crate) struct Element<'a> {
    browser: &'a Browser,
    path: String,
}

impl Element<'_> {
    /// Clicks its middle, as a user does: it must be visible and not covered.
    #[track_caller]
    pub(crate) fn click(&self) {
        self.ask("POST", "/click", &json!({}));
    }

    /// Types text into it.
    #[track_caller]
    pub(crate) fn type_in(&self, text: &str) {
        self.ask("POST", "/value", &json!({ "text": text }));
    }

    /// Makes it hold `value`, and tells the page so: for sliders, numbers and choices.
    #[track_caller]
    pub(crate) fn set_value(&self, value: &str) {
        let id = self.path.trim_start_matches("/element/");
        let script = "arguments[0].value = arguments[1];\
                      for (const kind of ['input', 'change']) arguments[0].dispatchEvent(new Event(kind, {bubbles: true}));";
        let arguments = json!([{ ELEMENT: id }, value]);
        self.browser.ask(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": arguments}),
        );
    }

    /// Its visible text.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        let text = self.ask("GET", "/text", &Value::Null);
        text.as_str().unwrap_or_default().to_owned()
    }

    /// An attribute as it stands; `None` where it has none.
    #[track_caller]
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        let value = self.ask("GET", &format!("/attribute/{name}"), &Value::Null);
        value.as_str().map(str::to_owned)
    }

    /// Whether a user sees it.
    #[track_caller]
    pub(crate) fn is_shown(&self) -> bool {
        self.ask("GET", "/displayed", &Value::Null) == true
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.browser
            .ask(method, &format!("{}{path}", self.path), body)
    }
}

/// `ChromeDriver was started successfully on port 4711.`; the line that only repeats port 0 is not it.
/// Starts the driver. It takes a free port of IPv4 and wants the same of IPv6, which another test may
/// have: it ends then, and is started again.
#[track_caller]
fn driver() -> (Child, u16, Lines) {
    let mut complaints = String::new();
    for _ in 0..DRIVER_TRIES {
        let mut driver = Command::new(tool("chromedriver"))
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Lines::gather(driver.stdout.take().expect("stdout is piped"));
        let complained = Lines::gather(driver.stderr.take().expect("stderr is piped"));
        let port_of = |lines: &[String]| lines.iter().find_map(|line| port_in(line));
        if let Some(port) = said.wait_or_end("chromedriver's port", port_of) {
            return (driver, port, said);
        }
        let status = driver.wait().unwrap();
        complained.wait_for_end();
        let (said, complained) = (said.text(), complained.text());
        complaints += &format!("{status}: {said}\n{complained}\n");
    }
    panic!("no chromedriver after {DRIVER_TRIES} tries:\n{complaints}");
}

fn port_in(line: &str) -> Option<u16> {
    let port = line.split_once("successfully on port ")?.1;
    port.trim_end_matches('.').parse().ok()
}

/// With a timeout, a socket's wait ends with EINTR where this process is stopped and goes on (signal(7)),
/// as it is with the machine under it.
fn read_some(stream: &mut TcpStream, piece: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn read_answer(stream: &mut TcpStream) -> std::io::Result<(u16, Value)> {
    let mut bytes = Vec::new();
    let (status, from, length) = loop {
        let mut piece = [0; 16 * 1024];
        let read = read_some(stream, &mut piece)?;
        bytes.extend_from_slice(&piece[..read]);
        if let Some(head) = head_of(&bytes) {
            break head;
        }
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    while bytes.len() < from + length {
        let mut piece = [0; 64 * 1024];
        match read_some(stream, &mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
    let body = serde_json::from_slice(&bytes[from..from + length]).unwrap_or_default();
    Ok((status, body))
}

/// Status, where the body begins, and its length; `None` while the head is not complete.
fn head_of(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(from) = head.parse(bytes).expect("HTTP") else {
        return None;
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .unwrap_or(0);
    Some((head.code?, from, length))
}

fn from_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|byte| LETTERS.iter().position(|letter| *letter == byte));
    let digits: Vec<usize> = digits.collect();
    digits
        .chunks(4)
        .flat_map(|chunk| {
            let word = (0..4).fold(0, |word, at| {
                word << 6 | chunk.get(at).copied().unwrap_or(0)
            });
            let count = chunk.len() - 1;
            u32::try_from(word).expect("24 bits").to_be_bytes()[1..]
                .to_vec()
                .into_iter()
                .take(count)
        })
        .collect()
}
