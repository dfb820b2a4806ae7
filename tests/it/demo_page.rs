//! The demonstration as people use it: its page in a real browser, steered by the page's own
//! controls, judged by the shares that the page shows and by what the API counts.
//!
//! Shares are of the last seconds; they are read once so many connections have come that all of
//! those seconds lie after the change. Nothing here is a duration.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::browser::{Browser, DOWN, ENTER, RIGHT, TAB};
use crate::harness::program::{Evenkeel, binary};
use crate::harness::{eventually, eventually_some};

/// Connections a second of the load in these tests.
const RATE: u64 = 400;
/// At that rate more than the page's shares and rates look back: 4 seconds, and a look a second.
const WINDOW: u64 = RATE * 6;
/// Connections that may still go where they went before a change.
const SETTLING: u64 = 60;

/// A demonstration and somebody who looks at it.
struct Visit {
    browser: Browser,
    url: String,
    _evenkeel: Evenkeel,
}

impl Visit {
    /// Opens the page of a demonstration, and has its load go faster.
    #[track_caller]
    fn begin() -> Self {
        let visit = Self::before_opening();
        visit.browser.open(&visit.url);
        visit.set("[data-test='demo-rate']", &RATE.to_string());
        visit.pass(SETTLING);
        visit
    }

    #[track_caller]
    fn before_opening() -> Self {
        let mut command = Command::new(binary());
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let evenkeel = Evenkeel::spawn(command, TempDir::new().unwrap());
        let line = evenkeel.output().wait_for("open http://");
        let url = line.split_whitespace().nth(1).expect("an address");
        let url = url.to_owned();
        Self {
            browser: Browser::start(),
            url,
            _evenkeel: evenkeel,
        }
    }

    /// What the page must not have done, whatever was done to it.
    #[track_caller]
    fn end(&self) {
        assert_eq!(self.browser.console_errors(), Vec::<String>::new());
        let requests = self.browser.requests();
        let is_ours = |url: &String| url.starts_with(&self.url) || url.starts_with("data:");
        assert!(requests.iter().all(is_ours), "{requests:?}");
    }

    #[track_caller]
    fn click(&self, css: &str) {
        self.browser.find(css).click();
    }

    #[track_caller]
    fn set(&self, css: &str, value: &str) {
        self.browser.find(css).set_value(value);
    }

    /// Clicks on an algorithm and waits until the pool has it.
    #[track_caller]
    fn pick(&self, algorithm: &str) {
        self.click(&format!("[data-test='demo-algorithm-{algorithm}']"));
        eventually(algorithm, || {
            self.get("/api/v1/pools/demo")["algorithm"] == algorithm
        });
    }

    #[track_caller]
    fn slow(&self, server: &str, delay_ms: u64) {
        self.set(&card(server, " [data-test='delay']"), &delay_ms.to_string());
        self.wait_for_delay(server, delay_ms);
    }

    #[track_caller]
    fn wait_for_delay(&self, server: &str, delay_ms: u64) {
        eventually("the delay", || {
            self.demo()["servers"][server]["delay_ms"] == delay_ms
        });
    }

    /// Asked by the page: the browser lets it ask nobody else.
    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let script = format!("return fetch('{path}').then((answer) => answer.json())");
        self.browser.execute(&script)
    }

    fn demo(&self) -> Value {
        self.get("/api/v1/demo")
    }

    /// Connections that each server was given since the beginning.
    fn totals(&self) -> BTreeMap<String, u64> {
        let pool = self.get("/api/v1/pools/demo");
        let servers = pool["servers"].as_object().unwrap().iter();
        let total = |server: &Value| server["connections"]["total"].as_u64().unwrap();
        servers
            .map(|(name, server)| (name.clone(), total(server)))
            .collect()
    }

    /// Waits until so many more connections have come.
    #[track_caller]
    fn pass(&self, count: u64) {
        let all = || self.totals().values().sum::<u64>();
        let before = all();
        eventually("connections", || all() >= before + count);
    }

    /// The percentages on the cards now.
    #[track_caller]
    fn shares(&self) -> BTreeMap<String, f64> {
        let shares = self.browser.execute(
            "return Object.fromEntries([...document.querySelectorAll('[data-server]')]\
             .map(({dataset}) => [dataset.server, Number(dataset.share)]))",
        );
        serde_json::from_value(shares).unwrap()
    }

    /// The percentages once all that they tell of has come after now.
    #[track_caller]
    fn next_shares(&self) -> BTreeMap<String, f64> {
        self.pass(WINDOW);
        let shares = self.shares();
        let sum: f64 = shares.values().sum();
        assert!((99.0..=101.0).contains(&sum), "all of it: {shares:?}");
        shares
    }

    #[track_caller]
    fn text(&self, css: &str) -> String {
        self.browser.find(css).text()
    }

    /// Presses Tab until the focus is on what a selector finds.
    #[track_caller]
    fn tab_to(&self, css: &str) {
        let is_there = format!("return document.activeElement.matches(\"{css}\")");
        let reached = (0..80).any(|_| {
            self.browser.press(TAB);
            self.browser.execute(&is_there) == true
        });
        assert!(reached, "Tab reaches {css}");
        let outlined = "const at = document.activeElement;\
            return [at, at.closest('label') ?? at].some((it) => getComputedStyle(it).outlineStyle !== 'none')";
        assert_eq!(
            self.browser.execute(outlined),
            true,
            "the focus is seen: {css}"
        );
    }
}

fn card(server: &str, rest: &str) -> String {
    format!("[data-server='{server}']{rest}")
}

#[test]
fn round_robin_keeps_a_slow_server_its_share_and_others_move_away() {
    let visit = Visit::begin();
    visit.slow("s1", 400);
    let shares = visit.next_shares();
    assert!((15.0..=25.0).contains(&shares["s1"]), "{shares:?}");
    for algorithm in ["least_connections", "power_of_two"] {
        visit.pick(algorithm);
        let shares = visit.next_shares();
        assert!(shares["s1"] < 10.0, "{algorithm}: {shares:?}");
        let served = shares.values().filter(|share| **share > 10.0).count();
        assert_eq!(served, 4, "{algorithm}: {shares:?}");
    }
    visit.end();
}

#[test]
fn a_killed_server_gets_nothing_and_no_client_sees_an_error_after_it() {
    let visit = Visit::begin();
    visit.click(&card("s2", " [data-test='kill']"));
    visit.browser.find(&card("s2", "[data-state='down']"));
    visit.pass(SETTLING);
    let (total, errors) = (
        visit.totals()["s2"],
        visit.demo()["load"]["errors"].to_string(),
    );
    let shares = visit.next_shares();
    assert!(shares["s2"] == 0.0, "{shares:?}");
    assert_eq!(visit.totals()["s2"], total, "no new connection");
    assert_eq!(visit.text("[data-test='demo-errors']"), errors);
    visit
        .browser
        .find("[data-test='demo-verdict'][data-errors='0']");
    assert_eq!(visit.text(&card("s2", " [data-test='kill']")), "Revive");
    visit.click(&card("s2", " [data-test='kill']"));
    visit.browser.find(&card("s2", "[data-state='up']"));
    let shares = visit.next_shares();
    assert!((15.0..=25.0).contains(&shares["s2"]), "{shares:?}");
    assert_eq!(
        visit.text("[data-test='demo-errors']"),
        errors,
        "nor at its return"
    );
    visit.end();
}

#[test]
fn ip_hash_keeps_each_client_on_its_server() {
    let visit = Visit::begin();
    // What it had under way when it was asked to change comes late, and is no change.
    visit.slow("s3", 1000);
    visit.pick("ip_hash");
    visit
        .browser
        .find("[data-test='demo-clients'][data-settled='true']");
    let rows = || {
        visit.browser.execute(
            "return [...document.querySelectorAll('[data-client]')]\
             .map(({dataset}) => [dataset.client, dataset.clientServer, dataset.changes])",
        )
    };
    let before = rows();
    visit.pass(WINDOW);
    assert_eq!(rows(), before, "server and changes of each");
    let rows = before.as_array().unwrap();
    assert_eq!(rows.len(), 24);
    assert!(rows.iter().all(|row| row[2] == "0"), "{rows:?}");
    assert!(rows.iter().any(|row| row[1] != rows[0][1]), "{rows:?}");
    visit.end();
}

#[test]
fn weights_show_in_the_shares() {
    let visit = Visit::begin();
    visit.set(&card("s3", " [data-test='weight']"), "6");
    visit.browser.find(&card("s3", "[data-weight='6']"));
    let shares = visit.next_shares();
    // Six of ten, and one of ten for each of the others.
    for (name, share) in &shares {
        let expected = if name == "s3" { 60.0 } else { 10.0 };
        assert!((share - expected).abs() < 5.0, "{shares:?}");
    }
    visit.end();
}

#[test]
fn the_load_stops_starts_and_changes_its_rate() {
    let visit = Visit::begin();
    visit.click("[data-test='demo-load'][data-running='true']");
    visit
        .browser
        .find("[data-test='demo-load'][data-running='false']");
    eventually("nothing is in flight", || {
        visit.demo()["load"]["in_flight"] == 0
    });
    let before = visit.totals();
    // The page has heard of several seconds without a connection.
    visit.browser.wait_for(
        "document.querySelector('[data-server=s1] [data-test=fresh]').textContent === '0'",
    );
    assert_eq!(visit.totals(), before, "no new connection");
    visit.set("[data-test='demo-rate']", "100");
    visit.click("[data-test='demo-load'][data-running='false']");
    let shows = |css: &str| {
        let css = format!("document.querySelector(\"{css}\").textContent");
        visit
            .browser
            .wait_for(&format!("{css} > 80 && {css} < 120 && {css}"));
    };
    shows("[data-test='demo-answered']");
    shows(".hub b");
    visit.set("[data-test='demo-rate']", "20");
    visit
        .browser
        .wait_for("document.querySelector('.hub b').textContent < 30");
    visit.end();
}

#[test]
fn delays_beyond_the_slider_are_typed() {
    let visit = Visit::begin();
    let typed = card("s5", " [data-test='delay-typed']");
    visit.set(&typed, "10000");
    visit.wait_for_delay("s5", 10_000);
    visit.slow("s5", 30);
    visit.browser.wait_for(
        "document.querySelector('[data-server=s5] [data-test=delay-typed]').value === '30'",
    );
    visit.end();
    visit.set(&typed, "10001");
    let said = visit.text("[data-test='toasts'] .wrong");
    assert!(said.contains("10000"), "{said}");
}

#[test]
fn the_keyboard_alone_plays_with_it() {
    let visit = Visit::begin();
    visit.tab_to("[data-test='demo-algorithm-round_robin']");
    visit.browser.press(DOWN);
    eventually("the next algorithm", || {
        visit.get("/api/v1/pools/demo")["algorithm"] == "least_connections"
    });
    visit.tab_to("[data-test='demo-rate']");
    visit.browser.press(RIGHT);
    eventually("one more", || visit.demo()["load"]["rate"] == RATE + 1);
    visit.tab_to("[data-test='demo-load']");
    visit.browser.press(ENTER);
    eventually("it stops", || visit.demo()["load"]["running"] == false);
    visit.tab_to("[data-server='s1'] [data-test='kill']");
    visit.browser.press(ENTER);
    visit.browser.find(&card("s1", "[data-state='down']"));
    visit.tab_to("[data-server='s1'] [data-test='delay']");
    visit.browser.press(RIGHT);
    visit.wait_for_delay("s1", 30);
    visit.end();
}

#[test]
fn a_phone_needs_no_scrolling_sideways() {
    let visit = Visit::before_opening();
    visit.browser.set_size(360, 740);
    visit.browser.open(&visit.url);
    visit.click(&card("s2", " [data-test='kill']"));
    visit.set(&card("s1", " [data-test='delay-typed']"), "10000");
    visit.pick("ip_hash");
    visit.browser.find(&card("s2", "[data-state='down']"));
    visit.browser.find("[data-client]");
    // Each within the card or panel that it stands in.
    let wide = visit.browser.execute(
        "return [...document.querySelectorAll('main *')].filter((element) => {\
         const {right} = element.getBoundingClientRect();\
         const frame = element.parentElement.closest('.server, .panel, main').getBoundingClientRect();\
         return right > frame.right + 1 && !element.closest('.plot, .unseen');\
         }).map((element) => element.outerHTML.slice(0, 100))",
    );
    assert_eq!(wide, json!([]), "these stand out");
    visit.end();
}

/// A status of the pool `web` with these servers and connections of each.
fn status(servers: &[(&str, u64)], seconds: u64) -> String {
    let server = |total: u64| {
        json!({
            "address": "127.0.0.1:1", "state": "up", "weight": 1, "backup": false,
            "max_connections": null, "bytes": {"upstream": 1, "downstream": 2}, "drain": null,
            "connections": {"active": 1, "total": total, "failed": 0},
            "health": {"last": "ok", "reason": "connected", "since_seconds": 3.0},
        })
    };
    let connections = json!({"active": 1, "total": seconds, "refused": 0, "max": 9});
    // Written by hand: the order of the servers is what matters.
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, total)| format!("{}:{}", json!(name), server(*total)))
        .collect();
    json!({
        "version": "1", "uptime_seconds": seconds, "ready": true, "reasons": [],
        "stage": "serving", "workers": 1, "connections": connections, "leaving": [],
        "config": {"file": null, "differs": [], "confirm_seconds": null},
        "listeners": {"web": {"bind": ["127.0.0.1:1"], "pool": "web", "connections": connections}},
        "pools": {"web": {"algorithm": "random", "servers": "SERVERS"}}, "demo": false,
    })
    .to_string()
    .replace("\"SERVERS\"", &format!("{{{}}}", servers.join(",")))
}

/// The page with a stream of the test's own.
fn staged() -> Visit {
    let visit = Visit::before_opening();
    visit.browser.open_staged(&visit.url);
    visit
}

fn send(visit: &Visit, servers: &[(&str, u64)], seconds: u64) {
    let text = json!(status(servers, seconds));
    visit.browser.execute(&format!("staged.text({text})"));
}

#[test]
fn names_of_digits_keep_the_order_of_the_configuration() {
    let visit = staged();
    send(&visit, &[("10", 1), ("b", 1), ("9", 1), ("a,\"1\":", 1)], 1);
    let names = "return [...document.querySelectorAll('[data-server]')]\
                 .map(({dataset}) => dataset.server)";
    assert_eq!(
        visit.browser.execute(names),
        json!(["10", "b", "9", "a,\"1\":"])
    );
}

#[test]
fn a_server_that_is_removed_takes_nothing_from_the_shares_of_others() {
    let visit = staged();
    let share = || visit.shares();
    send(&visit, &[("a", 100), ("b", 100), ("gone", 5000)], 1);
    send(&visit, &[("a", 110), ("b", 110), ("gone", 5020)], 2);
    assert_eq!((share()["a"], share()["gone"]), (25.0, 50.0));
    send(&visit, &[("a", 150), ("b", 150)], 3);
    let shares = share();
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(
        shares.values().all(|share| (40.0..=50.0).contains(share)),
        "{shares:?}"
    );
}

/// The picture of the README, from a moment that shows something: least connections, a server
/// slowed and one killed. Each run keeps one as `target/tmp/dashboard.png`; `scripts/screenshot`
/// asks for one that has been waited for, so that the charts are filled.
#[test]
fn a_picture_is_kept() {
    let visit = Visit::before_opening();
    let is_for_show = std::env::var_os("EVENKEEL_PICTURE").is_some();
    let calm = |windows| {
        for _ in 0..if is_for_show { windows } else { 0 } {
            visit.pass(WINDOW / 2);
        }
    };
    frame(&visit.browser);
    visit.browser.open(&visit.url);
    visit.browser.find(&card("s1", "[data-state='up']"));
    calm(5);
    visit.slow("s4", 300);
    calm(5);
    visit.pick("least_connections");
    calm(5);
    visit.click(&card("s2", " [data-test='kill']"));
    visit.browser.find(&card("s2", "[data-state='down']"));
    calm(5);
    // The focus is the test's own.
    visit.browser.execute("document.activeElement.blur()");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard.png");
    let is_kept = eventually_some("a picture", || {
        visit.browser.screenshot(&file).then(|| file.is_file())
    });
    assert!(is_kept);
    visit.end();
}

/// So much of the page that pools and charts are in it, with dots that move, as people have it.
fn frame(browser: &Browser) {
    let size = json!({"width": 1440, "height": 1244, "deviceScaleFactor": 2, "mobile": false});
    browser.devtools("Emulation.setDeviceMetricsOverride", &size);
    browser.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
    let motion = json!([{"name": "prefers-reduced-motion", "value": "no-preference"}]);
    browser.devtools("Emulation.setEmulatedMedia", &json!({ "features": motion }));
}
