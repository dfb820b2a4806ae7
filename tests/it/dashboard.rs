//! The page at `/`, in a real browser, before a running evenkeel: what is shown, live, to whom, and
//! what happens when the connection is lost. Moving numbers are waited for, never measured.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::browser::{Browser, ENTER, TAB};
use crate::harness::peers::Refusing;
use crate::harness::program::{Evenkeel, send_signal};
use crate::harness::servers::{Greeter, visits};

const TOKEN: &str = "a-token-of-the-tests";

/// An evenkeel with the servers `a` and `b`, and a token.
struct Shown {
    evenkeel: Evenkeel,
    a: Greeter,
    b: Greeter,
    _folder: TempDir,
}

impl Shown {
    fn start() -> Self {
        let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
        let folder = TempDir::new().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let admin = format!("http: 127.0.0.1:0, http_token_file: {}", token.display());
        let evenkeel = Evenkeel::start(&config(&admin, a.address(), b.address()));
        Self {
            evenkeel,
            a,
            b,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        url(&self.evenkeel)
    }
}

fn config(admin: &str, a: SocketAddr, b: SocketAddr) -> String {
    format!(
        "workers: 1\nadmin: {{socket: off, {admin}}}\n\
         listeners:\n  web:\n    bind: 127.0.0.1:0\n    pool: web\n\
         pools:\n  web:\n    algorithm: round_robin\n\
         \x20   health: {{type: tcp, interval: 100ms, timeout: 1s, rise: 1, fall: 1}}\n\
         \x20   servers:\n      - {{name: a, address: {a}}}\n      - {{name: b, address: {b}}}\n"
    )
}

/// What the process log says about where the page is.
fn url(evenkeel: &Evenkeel) -> String {
    let line = evenkeel.errors().wait_for("admin: http://");
    let (_, place) = line.split_once("admin: ").expect("waited for");
    let place = place.split_whitespace().next().expect("an address");
    format!("{}/", place.trim_end_matches('/'))
}

fn server(name: &str, attributes: &str) -> String {
    format!("[data-server='{name}']{attributes}")
}

/// The page with a stream of the test's own, which nothing has come through yet.
fn staged(browser: &Browser, shown: &Shown) {
    browser.open_staged(&shown.url());
}

fn send(browser: &Browser, kind: &str, value: &Value) {
    browser.execute(&format!("staged.{kind}({value})"));
}

/// A status of one pool, which takes `seconds` connections a server by then.
fn status(pool: &str, names: &[String], seconds: u64) -> Value {
    let servers: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| {
            let server = json!({
                "address": "127.0.0.1:1", "state": "up", "weight": 1, "backup": false,
                "max_connections": null, "bytes": {"upstream": 1, "downstream": 2}, "drain": null,
                "connections": {"active": 1, "total": seconds, "failed": 0},
                "health": {"last": "ok", "reason": pool, "since_seconds": 3.0},
            });
            (name.clone(), server)
        })
        .collect();
    let connections = json!({"active": 1, "total": seconds, "refused": 0, "max": 9});
    let source = json!({"source": pool, "addresses": 2, "last": "failed", "reason": pool,
        "since_seconds": 3.0});
    json!({
        "version": pool, "uptime_seconds": seconds, "ready": false, "reasons": [pool],
        "stage": "serving", "workers": 1, "connections": connections,
        "bytes": {"upstream": 1, "downstream": 2}, "worker_connections": [1],
        "config": {"file": pool, "differs": [pool], "confirm_seconds": null},
        "listeners": {pool: {"bind": [pool], "pool": pool, "connections": connections}},
        "pools": {pool: {"algorithm": pool, "discovery": [source], "servers": servers}},
        "leaving": [{"pool": pool, "server": pool, "address": pool, "drain": null,
            "connections": {"active": 1, "total": 1, "failed": 0},
            "bytes": {"upstream": 1, "downstream": 2}}],
        "demo": false,
    })
}

#[test]
fn the_page_is_whole_and_asks_nobody_else() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.open(&shown.url());
    browser.find(&server("a", "[data-state='up']"));
    browser.find(&server("b", "[data-state='up']"));
    browser.find("[data-test='readiness'][data-ready='true']");
    browser.wait_for("document.querySelectorAll('.plot canvas').length === 3");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    let requests = browser.requests();
    assert!(
        requests.iter().any(|url| url.ends_with("/api/v1/events")),
        "{requests:?}"
    );
    let is_ours = |url: &String| url.starts_with(&shown.url()) || url.starts_with("data:");
    assert!(requests.iter().all(is_ours), "{requests:?}");
}

#[test]
fn a_server_that_goes_down_is_shown_with_the_reason() {
    let (mut shown, browser) = (Shown::start(), Browser::start());
    browser.open(&shown.url());
    browser.find(&server("b", "[data-state='up']"));
    shown.b.stop();
    browser.find(&server("b", "[data-state='down']"));
    let card = browser.find("[data-server='b']").text();
    assert!(
        card.contains("Down"),
        "the word, not the colour alone: {card}"
    );
    browser.find("[data-test='events'] [data-kind='server_down']");
    browser.find(&server("a", "[data-state='up']"));
}

#[test]
fn shares_follow_the_connections() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.open(&shown.url());
    browser.find(&server("a", "[data-share='0.0']"));
    // The shares are of seconds, which end: new connections come until the page has seen some.
    crate::harness::eventually("both have their half", || {
        visits(shown.evenkeel.address(), 20);
        let shares = browser.execute(
            "return ['a', 'b'].map((name) => \
             Number(document.querySelector(`[data-server='${name}']`).dataset.share))",
        );
        let share = |at: usize| shares[at].as_f64().unwrap_or_default();
        (40.0..=60.0).contains(&share(0)) && (40.0..=60.0).contains(&share(1))
    });
    assert_eq!(shown.a.accepted() > 0, shown.b.accepted() > 0);
}

#[test]
fn names_and_reasons_stay_text_whatever_they_hold() {
    let (shown, browser) = (Shown::start(), Browser::start());
    staged(&browser, &shown);
    let hostile =
        "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";
    for seconds in 1..4 {
        send(
            &browser,
            "status",
            &status(hostile, &[hostile.to_owned()], seconds),
        );
    }
    let event = json!({"number": 1, "time": hostile, "kind": hostile, "text": hostile});
    send(&browser, "happening", &event);
    browser.wait_for("document.querySelector('[data-test=events] li .text')");
    let shown = browser.wait_for("document.querySelector('[data-server] .name').textContent");
    assert_eq!(shown, *hostile);
    let source = browser.wait_for("document.querySelector('[data-test=sources]').textContent");
    let source = source.as_str().unwrap();
    assert!(
        source.starts_with(&format!("{hostile}: 2 servers, failed for 3")),
        "{source}"
    );
    let made = "return document.querySelectorAll('main img, main script, header img').length";
    assert_eq!(browser.execute(made), 0);
    assert_eq!(browser.execute("return document.title"), "evenkeel");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}

#[test]
fn of_a_thousand_servers_some_are_drawn_and_each_is_found() {
    let (shown, browser) = (Shown::start(), Browser::start());
    staged(&browser, &shown);
    let names: Vec<String> = (0..1000).map(|number| format!("s-{number}-")).collect();
    for seconds in 1..4 {
        send(&browser, "status", &status("web", &names, seconds));
    }
    let state = browser
        .find("[data-test='readiness']")
        .attribute("data-ready");
    assert_eq!(state.as_deref(), Some("false"), "as the status says");
    let drawn = browser.wait_for("document.querySelectorAll('[data-server]').length");
    assert!(drawn.as_u64().is_some_and(|drawn| drawn < 200), "{drawn}");
    browser.find("[data-test='filter']").type_in("s-777-");
    browser.wait_for("document.querySelectorAll('[data-server]').length === 1");
    browser.find(&server("s-777-", "[data-share='0.1']"));
}

#[test]
fn a_process_that_ends_is_told_and_its_successor_found() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let port = Refusing::new();
    let config = config(
        &format!("http: {}", port.address()),
        a.address(),
        b.address(),
    );
    let (evenkeel, browser) = (Evenkeel::start(&config), Browser::start());
    browser.open(&url(&evenkeel));
    browser.find(&server("a", "[data-state='up']"));
    assert!(!browser.find("[data-test='lost']").is_shown());
    drop(evenkeel);
    browser.wait_for("!document.querySelector('[data-test=lost]').hidden");
    let banner = browser.find("[data-test='lost']").text();
    assert!(
        banner.contains("lost") && banner.contains("Since"),
        "{banner}"
    );
    let _successor = Evenkeel::start(&config);
    browser.wait_for("document.querySelector('[data-test=lost]').hidden");
    browser.find(&server("a", "[data-state='up']"));
}

#[test]
fn a_stream_that_ends_is_opened_anew_and_told_as_a_loss_only_where_nothing_comes() {
    let (shown, browser) = (Shown::start(), Browser::start());
    staged(&browser, &shown);
    let ends = || {
        browser.execute(
            "const before = staged;\
             before.dispatchEvent(new Event('error'));\
             return [staged !== before, document.querySelector('[data-test=lost]').hidden];",
        )
    };
    // As often as processes hand over to the next: each has something to say.
    for seconds in 1..4 {
        send(&browser, "status", &status("web", &["a".into()], seconds));
        assert_eq!(ends(), json!([true, true]));
    }
    assert_eq!(ends(), json!([false, false]));
}

#[test]
fn a_process_that_falls_silent_is_told_too() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.open(&shown.url());
    browser.find(&server("a", "[data-state='up']"));
    send_signal(shown.evenkeel.pid(), "STOP");
    browser.wait_for("!document.querySelector('[data-test=lost]').hidden");
    send_signal(shown.evenkeel.pid(), "CONT");
    browser.wait_for("document.querySelector('[data-test=lost]').hidden");
}

#[test]
fn a_phone_needs_no_scrolling_sideways() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.set_size(360, 740);
    browser.open(&format!("{}#token={TOKEN}", shown.url()));
    browser.find(&server("a", " [data-test='drain']"));
    let wide = browser.execute(
        "return [...document.querySelectorAll('body *')]\
         .filter((element) => element.getBoundingClientRect().right > 361 && !element.closest('.plot, .unseen'))\
         .map((element) => element.outerHTML.slice(0, 100))",
    );
    assert_eq!(wide, json!([]), "these stand out");
    assert_eq!(
        browser.execute("return document.documentElement.scrollWidth"),
        360
    );
}

#[test]
fn the_keyboard_alone_drains_a_server() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.open(&format!("{}#token={TOKEN}", shown.url()));
    browser.find(&server("a", " [data-test='drain']"));
    assert_eq!(
        browser.execute("return location.hash"),
        "",
        "no token stays in the address"
    );
    let is_there =
        "return document.activeElement.matches(\"[data-server='a'] [data-test='drain']\")";
    let reached = (0..60).any(|_| {
        browser.press(TAB);
        browser.execute(is_there) == true
    });
    assert!(reached, "Tab reaches the control");
    let outline = browser.execute("return getComputedStyle(document.activeElement).outlineStyle");
    assert_ne!(outline, "none", "the focus is visible");
    browser.press(ENTER);
    browser.find(&server("a", "[data-state='draining']"));
    assert_eq!(browser.execute(is_there), true, "the focus stays");
    assert_eq!(visits(shown.evenkeel.address(), 4), "bbbb");
}

#[test]
fn controls_are_there_for_who_has_the_token() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.open(&shown.url());
    browser.find(&server("a", ""));
    assert!(browser.find("[data-test='hint']").is_shown());
    assert!(
        browser
            .find_all("[data-test='drain'], [data-test='algorithm']")
            .is_empty()
    );
    browser.find("[data-test='unlock']").click();
    browser.find("[data-test='token']").type_in("another");
    browser.find("[data-test='token-submit']").click();
    browser.wait_for("document.querySelector('[data-test=token-wrong]').textContent");
    browser.find("[data-test='token']").set_value(TOKEN);
    browser.find("[data-test='token-submit']").click();
    browser
        .find(&server("a", " [data-test='weight']"))
        .set_value("3");
    browser.find(&server("a", "[data-weight='3']"));
    browser.find("[data-test='algorithm']").set_value("random");
    browser.find("[data-test='events'] [data-kind='changed']");
    browser.find("[data-test='differs']");
    browser.find("[data-test='unlock']").click();
    browser.wait_for("!document.querySelector('[data-test=drain]')");
}

#[test]
fn it_is_dark_where_the_system_is_unless_told_otherwise() {
    let (shown, browser) = (Shown::start(), Browser::start());
    browser.prefer("dark");
    browser.open(&shown.url());
    browser.find(&server("a", ""));
    let lightness = || {
        let colour = browser.execute(
            "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)",
        );
        colour.as_array().expect("three numbers")[0]
            .as_u64()
            .expect("red")
    };
    assert!(lightness() < 60, "dark");
    // From `auto` to `light`.
    browser.find("[data-test='theme']").click();
    assert!(lightness() > 200, "light");
}
