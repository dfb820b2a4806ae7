//! Several evenkeels side by side: `status --node`, `GET /api/v1/nodes` and the page's section, before
//! real ones that differ, and before stubs that hang, talk nonsense or mean harm.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::harness::DEADLINE;
use crate::harness::api::Api;
use crate::harness::browser::Browser;
use crate::harness::eventually;
use crate::harness::peers::Refusing;
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::Greeter;

/// An evenkeel at `http` whose pool `web` has these servers by name.
fn node(http: &str, admin: &str, servers: &[(&str, SocketAddr)]) -> Evenkeel {
    let list: String = servers
        .iter()
        .map(|(name, address)| format!("      - {{name: {name}, address: {address}}}\n"))
        .collect();
    Evenkeel::start(&format!(
        "workers: 1\nadmin: {{socket: SOCKET, http: \"{http}\"{admin}}}\n\
         listeners:\n  web:\n    bind: 127.0.0.1:0\n    pool: web\n\
         pools:\n  web:\n    health: off\n    servers:\n{list}"
    ))
}

/// Where its HTTP is.
fn place(evenkeel: &Evenkeel) -> String {
    match evenkeel.http() {
        Api::Tcp(address) => address.to_string(),
        Api::Unix(path) => panic!("not over TCP: {}", path.display()),
    }
}

/// Three of them: the second drains `a`, the third has no `b`.
struct Three {
    nodes: [Evenkeel; 3],
    places: [String; 3],
    servers: [Greeter; 2],
}

impl Three {
    fn start() -> Self {
        let servers = [Greeter::listen(b'a'), Greeter::listen(b'b')];
        let both = [("a", servers[0].address()), ("b", servers[1].address())];
        let nodes = [
            node("127.0.0.1:0", "", &both),
            node("127.0.0.2:0", "", &both),
            node("127.0.0.3:0", "", &both[..1]),
        ];
        let drained = nodes[1].command(&["drain", "web/a"]);
        assert!(drained.status.success(), "{drained:?}");
        Self {
            places: [0, 1, 2].map(|at| place(&nodes[at])),
            nodes,
            servers,
        }
    }
}

/// What `status --node` says of these.
fn status(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(["status", "--node"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The line that begins with `start`, as words.
#[track_caller]
fn line(output: &str, start: &str) -> String {
    let found = output
        .lines()
        .find(|line| line.trim_start().starts_with(start));
    let found = found.unwrap_or_else(|| panic!("no {start}:\n{output}"));
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn three_nodes_stand_side_by_side_with_what_differs() {
    let Three {
        nodes,
        places,
        servers: _servers,
    } = Three::start();
    let [one, two, three] = &places;
    let output = status(&[one, two, three]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    for place in &places {
        assert!(line(&shown, place).contains(" ready "), "{shown}");
    }
    assert!(
        line(&shown, "a ").ends_with("up 0 ! draining 0 up 0"),
        "{shown}"
    );
    assert!(
        line(&shown, "b ").ends_with("up 0 up 0 ! missing"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("server web/b: missing on {three}\n")),
        "{shown}"
    );
    let [first, _second, third] = nodes;
    drop(third);
    let output = status(&[one, "--node", two, three]);
    let (shown, complained) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{shown}{complained}");
    assert_eq!(complained.lines().count(), 1, "{complained}");
    assert!(
        complained.starts_with(&format!("{three}: ")),
        "{complained}"
    );
    assert!(
        complained.contains("refuses connections: is evenkeel running"),
        "{complained}"
    );
    assert_eq!(line(&shown, three), format!("{three} no answer"));
    assert!(
        line(&shown, "a ").ends_with("up 0 ! draining 0 ?"),
        "{shown}"
    );
    drop(first);
}

#[test]
fn as_json_each_node_has_its_status_or_an_error() {
    let (three, refusing) = (Three::start(), Refusing::new());
    let dead = refusing.address().to_string();
    let [one, two, _] = &three.places;
    let output = status(&[two, &dead, one, two, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = answer["nodes"].as_object().unwrap().keys().collect();
    assert_eq!(names, [two, &dead, one]);
    let state = &answer["nodes"][two]["pools"]["web"]["servers"]["a"]["state"];
    assert_eq!(state, "draining");
    assert_eq!(answer["nodes"][one]["ready"], true);
    let error = answer["nodes"][&dead]["error"].as_str().unwrap();
    assert!(error.contains("refuses connections"), "{error}");
}

/// Something that is no evenkeel: it says the same to whoever asks, or nothing at all, and notes what
/// it was asked.
struct Stub {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stub {
    fn saying(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (notes, over): (Arc<Mutex<Vec<String>>>, _) =
            (Arc::clone(&heard), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut silent = Vec::new();
            let streams = listener.incoming().map(Result::unwrap);
            for mut stream in streams.take_while(|_| !over.load(Ordering::SeqCst)) {
                notes.lock().unwrap().push(head(&mut stream));
                match &answer {
                    // Whoever asked may have gone.
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => silent.push(stream),
                }
            }
        });
        Self {
            address,
            heard,
            is_over,
            thread: Some(thread),
        }
    }

    /// An answer of 200 with this body.
    fn answering(body: &str) -> Self {
        Self::with_status("200 OK", body)
    }

    fn with_status(status: &str, body: &str) -> Self {
        let length = body.len();
        Self::saying(Some(format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )))
    }

    fn silent() -> Self {
        Self::saying(None)
    }

    fn name(&self) -> String {
        self.address.to_string()
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A request's head.
fn head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    text(&head)
}

#[test]
fn strangers_are_told_apart_with_what_to_do() {
    let (hanging, garbage) = (
        Stub::silent(),
        Stub::saying(Some("SSH-2.0-x\r\n\r\n".into())),
    );
    let other = Stub::answering("{\"hello\": 1}");
    let closed = Stub::saying(Some(String::new()));
    let denied = Stub::with_status("403 Forbidden", "{\"error\": \"no\\u001b[2J\"}");
    let absent = Stub::with_status("404 Not Found", "{}");
    let living = node("127.0.0.1:0", "", &[("a", "127.0.0.1:1".parse().unwrap())]);
    // The C library knows this way to write 127.0.0.1, and evenkeel takes it for a name.
    let by_name = place(&living).replace("127.0.0.1", "127.1");
    let cases = [
        (hanging.name(), "no answer within 3 s"),
        (garbage.name(), "is no HTTP"),
        (other.name(), "with no status: is that admin.http"),
        (closed.name(), "closes the connection without an answer"),
        (
            denied.name(),
            "it refuses (403: no [2J): evenkeel lets everybody look",
        ),
        (absent.name(), "it has no status (404)"),
        (
            by_name,
            "(421): ask by its address, or add 127.1 to its admin.http_hosts",
        ),
        (
            "nowhere..invalid".into(),
            "the name nowhere..invalid is not known here",
        ),
    ];
    let names: Vec<&str> = cases.iter().map(|(name, _)| name.as_str()).collect();
    let living = place(&living);
    let output = status(&[&names[..], &[&living]].concat());
    let (shown, complained) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    for (name, advice) in &cases {
        let from = shown.split_once(name.as_str()).expect("its row").1;
        let why = from.lines().nth(1).unwrap();
        assert!(why.contains(advice), "{name}: {why}\n{shown}");
    }
    assert!(line(&shown, &living).contains(" ready "), "{shown}");
    assert!(
        complained.starts_with("8 of 9 nodes have told nothing: "),
        "{complained}"
    );
    assert_eq!(complained.lines().count(), 1);
    assert!(!shown.contains('\u{1b}') && !complained.contains('\u{1b}'));
}

#[test]
fn a_hostile_status_cannot_steer_the_terminal() {
    let evil = "\\u001b[2J\\n\\u0007";
    let stub = Stub::answering(&format!(
        "{{\"version\": \"{evil}\", \"stage\": \"{evil}\", \"reasons\": [\"{evil}\"], \"pools\": \
         {{\"{evil}\": {{\"algorithm\": \"{evil}\", \"servers\": {{\"{evil}\": \
         {{\"state\": \"{evil}\", \"address\": \"{evil}\"}}}}}}}}}}"
    ));
    let living = node("127.0.0.1:0", "", &[("a", "127.0.0.1:1".parse().unwrap())]);
    let output = status(&[&stub.name(), &place(&living)]);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.contains("\\u{1b}[2J"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown}");
}

/// An answer of `/api/v1/nodes` where `found` is true of it.
#[track_caller]
fn nodes_where(api: &Api, what: &str, found: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    eventually(what, || {
        last = api.get("/api/v1/nodes");
        found(&last)
    });
    last
}

#[test]
fn the_api_shows_others_beside_this_node_and_waits_for_no_dead_one() {
    let (three, hanging) = (Three::start(), Stub::silent());
    let [_, two, third] = &three.places;
    let port = Refusing::new();
    let own = port.address().to_string();
    let admin = format!(
        ", nodes: [\"{own}\", \"{}\", \"{two}\", \"{third}\"]",
        hanging.name()
    );
    let first = node(&own, &admin, &[("a", "127.0.0.1:1".parse().unwrap())]);
    let is_there =
        |answer: &Value| answer["nodes"][2]["ready"] == true && answer["nodes"][3]["ready"] == true;
    // The stub has two seconds before it counts as dead; the others are shown before.
    let answer = nodes_where(&first.api(), "the others", is_there);
    let names: Vec<_> = answer["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, [own, hanging.name(), two.clone(), third.clone()]);
    assert_eq!(answer["nodes"][0]["is_this"], true);
    assert_eq!(answer["nodes"][0]["ready"], true);
    assert!(answer["nodes"][1]["error"].is_string(), "{answer}");
    let servers = answer["pools"][0]["servers"].as_array().unwrap();
    let states = |at: usize| {
        servers[at]["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|seen| seen["state"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        states(0),
        [json!("up"), json!(null), json!("draining"), json!("up")]
    );
    assert_eq!(
        states(1),
        [json!("missing"), json!(null), json!("up"), json!("missing")]
    );
    assert_eq!(servers[0]["nodes"][2]["odd"], true);
    let late = nodes_where(&first.api(), "the dead one told", |answer| {
        answer["nodes"][1]["error"]
            .as_str()
            .is_some_and(|error| error.contains("within 2 s"))
    });
    assert!(is_there(&late), "{late}");
}

#[test]
fn nothing_is_shown_where_no_nodes_are_configured() {
    let alone = node("127.0.0.1:0", "", &[("a", "127.0.0.1:1".parse().unwrap())]);
    let empty = json!({"nodes": [], "pools": [], "differences": []});
    assert_eq!(alone.http().get("/api/v1/nodes"), empty);
    assert_eq!(alone.http().ask("POST", "/api/v1/nodes").status, 403);
    assert_eq!(alone.api().ask("POST", "/api/v1/nodes").status, 405);
}

#[test]
fn many_visitors_are_one_question_and_nothing_of_theirs_goes_along() {
    let stub = Stub::silent();
    let admin = format!(", nodes: [\"{}\"]", stub.name());
    let first = node(
        "127.0.0.1:0",
        &admin,
        &[("a", "127.0.0.1:1".parse().unwrap())],
    );
    let api = first.api();
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let headers = ["Authorization: Bearer s3cret", "Cookie: s3cret"];
                let path = "/api/v1/nodes?node=127.0.0.1:1";
                api.request("GET", path, &headers, None).expect(200);
            });
        }
    });
    // A visitor waits for a moment alone, and under load a question takes longer.
    eventually("a question", || !stub.heard().is_empty());
    let heard = stub.heard();
    // Ten, if each visitor asked; a second one comes where the first was not answered in time.
    assert!((1..5).contains(&heard.len()), "{heard:#?}");
    for head in &heard {
        assert!(
            head.starts_with("GET /api/v1/status HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains(&format!("host: {}\r\n", stub.name())),
            "{head}"
        );
        assert!(!head.contains("s3cret"), "{head}");
    }
}

#[test]
fn a_reload_says_that_other_nodes_need_an_upgrade() {
    let config = |nodes: &str| {
        format!(
            "admin: {{socket: SOCKET, http: \"127.0.0.1:0\"{nodes}}}\n\
             listeners: {{web: {{bind: \"127.0.0.1:0\", pool: web}}}}\n\
             pools: {{web: {{health: off, servers: [\"127.0.0.1:1\"]}}}}\n"
        )
    };
    let first = Evenkeel::start(&config(""));
    let stub = Stub::answering("{\"version\": \"9.9.9\", \"pools\": {}}");
    first.rewrite(&config(&format!(", nodes: [\"{}\"]", stub.name())));
    let said = text(&first.command(&["plan"]).stdout);
    assert!(
        said.contains(&format!("admin.nodes none -> {}", stub.name())),
        "{said}"
    );
    first.upgrade();
    let answer = nodes_where(&first.api(), "the other node", |answer| {
        answer["nodes"][1]["version"] == "9.9.9"
    });
    assert_eq!(
        answer["differences"][1],
        "pool web: missing on ".to_owned() + &stub.name()
    );
}

#[test]
fn the_page_shows_the_nodes_and_what_becomes_of_them() {
    let Three {
        nodes,
        places,
        servers,
    } = Three::start();
    let admin = format!(", nodes: [\"{}\", \"{}\"]", places[1], places[2]);
    let both = [("a", servers[0].address()), ("b", servers[1].address())];
    let first = node("127.0.0.1:0", &admin, &both);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", place(&first)));
    browser.find("[data-test='nodes-servers'] [data-state='draining'][data-odd]");
    browser.find("[data-test='nodes-servers'] [data-state='missing'][data-odd]");
    browser.wait_for(
        "document.querySelectorAll('[data-test=nodes-list] [data-state=up]').length === 3",
    );
    assert!(browser.find("[data-test='nodes']").is_shown());
    let differences = browser.find("[data-test='nodes-differences']").text();
    assert_eq!(
        differences,
        format!("server web/b: missing on {}", places[2])
    );
    let own = browser
        .find("[data-test='nodes-list'] tr:first-child th")
        .text();
    assert!(
        own.contains(&place(&first)) && own.contains("this node"),
        "{own}"
    );
    let [_, second, third] = nodes;
    drop(third);
    browser.find("[data-test='nodes-list'] [data-state='down']");
    let table = browser.find("[data-test='nodes-list']").text();
    assert!(
        table.contains("No answer") && table.contains("refuses connections"),
        "{table}"
    );
    browser.set_size(360, 740);
    let width = browser.execute("return document.documentElement.scrollWidth");
    assert_eq!(width, 360, "wide tables scroll by themselves");
    assert!(second.command(&["ready", "web/a"]).status.success());
    browser.wait_for("!document.querySelector('[data-test=nodes-servers] [data-odd]')");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}

#[test]
fn what_a_node_says_stays_text_on_the_page() {
    let hostile = "<img src=x onerror=\\\"document.title='taken'\\\">";
    let stub = Stub::answering(&format!(
        "{{\"version\": \"{hostile}\", \"stage\": \"{hostile}\", \"reasons\": [\"{hostile}\"], \
         \"pools\": {{\"{hostile}\": {{\"servers\": {{\"{hostile}\": {{\"state\": \"{hostile}\"}}, \
         \"known\": {{\"state\": \"constructor\"}}}}}}}}}}"
    ));
    let admin = format!(", nodes: [\"{}\"]", stub.name());
    let first = node(
        "127.0.0.1:0",
        &admin,
        &[("a", "127.0.0.1:1".parse().unwrap())],
    );
    let browser = Browser::start();
    browser.open(&format!("http://{}/", place(&first)));
    browser.wait_for(
        "document.querySelector('[data-test=nodes-servers]').textContent.includes('<img src=x')",
    );
    assert_eq!(
        browser.execute("return document.querySelectorAll('main img').length"),
        0
    );
    assert_eq!(browser.execute("return document.title"), "evenkeel");
    let servers = browser.find("[data-test='nodes-servers']").text();
    assert!(servers.contains("Constructor"), "{servers}");
}

#[test]
fn a_page_without_other_nodes_has_no_such_section() {
    let first = node("127.0.0.1:0", "", &[("a", "127.0.0.1:1".parse().unwrap())]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", place(&first)));
    let asked = "performance.getEntriesByType('resource').some(({name, responseEnd}) => \
                 name.endsWith('/api/v1/nodes') && responseEnd > 0)";
    browser.wait_for(asked);
    assert!(!browser.find("[data-test='nodes']").is_shown());
}
