//! A scrape of a running evenkeel: Prometheus' own linter has nothing to say, every metric is there
//! with its labels and true values, and the document names each of them and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::harness::api::Api;
use crate::harness::peers::{Peer, Refusing, Server, connect_with_receive_buffer};
use crate::harness::program::{Evenkeel, is_listening};
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::tools::tool;
use crate::harness::{eventually, plain};

const BOTH: &str = "admin: {socket: SOCKET, http: 127.0.0.1:0}";
const MANUAL: &str = include_str!("../../docs/metrics.md");
/// Pools and servers in each of a large config.
const POOLS: usize = 10;
const SERVERS: usize = 100;

/// What one scrape has.
#[derive(Debug)]
struct Scrape {
    text: String,
    /// By name and labels as they are written.
    series: BTreeMap<String, f64>,
    /// The kind of each metric.
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads one; a series that comes twice fails it.
    #[track_caller]
    fn of(api: &Api) -> Self {
        let answer = api.ask("GET", "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let (mut series, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for line in answer.body.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(
                    kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{line} twice"
                );
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap();
                assert!(
                    series.insert(name.to_owned(), value).is_none(),
                    "{line} twice"
                );
            }
        }
        let text = answer.body;
        Self {
            text,
            series,
            kinds,
        }
    }

    /// The value of one series.
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let value = self.series.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in:\n{}", self.text))
    }

    /// All series of a metric, a histogram's parts included.
    fn of_metric<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let all = self
            .series
            .iter()
            .map(|(series, value)| (&**series, *value));
        all.filter(move |(series, _)| metric_of(self, series) == Some(name))
    }

    fn sum(&self, name: &str) -> f64 {
        self.of_metric(name).map(|(_, value)| value).sum()
    }

    /// Prometheus' linter says nothing about it.
    #[track_caller]
    fn is_approved(&self) {
        let mut linter = Command::new(tool("promtool"))
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        linter
            .stdin
            .take()
            .unwrap()
            .write_all(self.text.as_bytes())
            .unwrap();
        let output = linter.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&said), "", "{}", self.text);
        assert!(output.status.success());
    }
}

/// The metric that a series belongs to: its name, or for a part of a histogram that one's.
fn metric_of<'a>(scrape: &'a Scrape, series: &'a str) -> Option<&'a str> {
    let name = series.split('{').next()?;
    let parts = ["", "_bucket", "_sum", "_count"].iter();
    let mut names = parts.filter_map(|part| name.strip_suffix(part));
    names.find(|name| scrape.kinds.contains_key(*name))
}

/// The names of a series' labels.
fn labels_of(series: &str) -> BTreeSet<&str> {
    let labels = series.split_once('{').map_or("", |(_, rest)| rest);
    let quoted = labels.split("=\"").filter(|part| !part.is_empty());
    let names = quoted.map(|part| part.rsplit([',', '{']).next().unwrap_or_default());
    names
        .filter(|name| !name.contains('}') && *name != "le")
        .collect()
}

const MAIN: &str = r#"pool="shop",server="main""#;
const GONE: &str = r#"pool="shop",server="gone""#;

/// What a scrape says after the traffic of the test below.
fn after_known_traffic() -> Vec<(String, f64)> {
    let version = env!("CARGO_PKG_VERSION");
    let of_servers = [
        (format!("evenkeel_server_connections_total{{{MAIN}}}"), 2.0),
        (format!("evenkeel_server_connections_active{{{MAIN}}}"), 1.0),
        (failed(GONE, "refused"), 2.0),
        (failed(GONE, "timed_out"), 0.0),
        (failed(GONE, "local"), 0.0),
        (failed(MAIN, "refused"), 0.0),
        (format!("evenkeel_server_up{{{MAIN}}}"), 1.0),
        (format!("evenkeel_server_weight{{{MAIN}}}"), 7.0),
        (bytes(MAIN, "upstream"), 4.0),
        (bytes(MAIN, "downstream"), 6.0),
        (bytes(GONE, "upstream"), 0.0),
        (checks(MAIN, "ok"), 1.0),
        (checks(MAIN, "failed"), 0.0),
        (checks(MAIN, "unknown"), 0.0),
        (refused("limit"), 1.0),
        (refused("no_server"), 0.0),
        (format!("evenkeel_build_info{{version=\"{version}\"}}"), 1.0),
    ];
    let others = [
        ("evenkeel_listener_connections_total{listener=\"web\"}", 3.0),
        (
            "evenkeel_listener_connections_active{listener=\"web\"}",
            1.0,
        ),
        ("evenkeel_connect_seconds_count{pool=\"shop\"}", 2.0),
        // The refused one is not in it.
        ("evenkeel_connection_seconds_count{pool=\"shop\"}", 1.0),
        ("evenkeel_prober_lag_seconds_count", 2.0),
        ("evenkeel_pipes{state=\"lent\"}", 0.0),
        ("evenkeel_connections_total", 3.0),
        ("evenkeel_connections_active", 1.0),
        ("evenkeel_connections_max", 2.0),
        ("evenkeel_connections_ended_total{end=\"limit\"}", 1.0),
        (
            "evenkeel_connections_ended_total{end=\"client_reset\"}",
            1.0,
        ),
        ("evenkeel_ready", 1.0),
        ("evenkeel_config_differs", 0.0),
    ];
    let others = others.map(|(series, value)| (series.to_owned(), value));
    of_servers.into_iter().chain(others).collect()
}

#[test]
fn values_are_true_after_known_traffic() {
    let (greeter, refusing) = (Greeter::listen(b'a'), Refusing::new());
    let listener = refusing.listen();
    let config = format!(
        "workers: 2\nmax_connections: 2\n{BOTH}\nlisteners:\n\
         \x20 web: {{bind: \"127.0.0.1:0\", pool: shop}}\npools:\n  shop:\n    algorithm: first\n\
         \x20   health: {{type: tcp, interval: 1h, fall: 1}}\n    servers:\n\
         \x20     - {{name: gone, address: {}}}\n\
         \x20     - {{name: main, address: {}, weight: 7}}\n",
        refusing.address(),
        greeter.address()
    );
    let evenkeel = Evenkeel::start(&config);
    // Up at its only check, and not there any more.
    drop(listener);
    eventually("it refuses", || !is_listening(refusing.address()));
    let (mut client, _) = greeted(evenkeel.address());
    client.write_all(b"ping").unwrap();
    client.expect(b"ping");
    let (other, _) = greeted(evenkeel.address());
    evenkeel.connect().expect_reset();
    other.reset();
    evenkeel.ends(2);
    let first = Scrape::of(&evenkeel.api());
    first.is_approved();
    for (series, value) in after_known_traffic() {
        assert_eq!(first.value(&series), value, "{series}");
    }
    assert_eq!(first.sum("evenkeel_worker_connections"), 1.0);
    assert_eq!(first.of_metric("evenkeel_worker_connections").count(), 2);
    assert_eq!(first.sum("evenkeel_connections_ended_total"), 2.0);
    // Live, and the same over TCP.
    for _ in 0..1000 {
        client.write_all(b"ping").unwrap();
        client.expect(b"ping");
    }
    let second = Scrape::of(&evenkeel.http());
    assert_eq!(second.value(&bytes(MAIN, "upstream")), 4004.0);
    assert_eq!(second.value(&bytes(MAIN, "downstream")), 4006.0);
}

fn refused(reason: &str) -> String {
    let labels = format!("listener=\"web\",reason=\"{reason}\"");
    format!("evenkeel_listener_connections_refused_total{{{labels}}}")
}

fn failed(server: &str, reason: &str) -> String {
    format!("evenkeel_server_connections_failed_total{{{server},reason=\"{reason}\"}}")
}

fn bytes(server: &str, direction: &str) -> String {
    format!("evenkeel_bytes_total{{{server},direction=\"{direction}\"}}")
}

fn checks(server: &str, result: &str) -> String {
    format!("evenkeel_health_checks_total{{{server},result=\"{result}\"}}")
}

#[test]
fn histograms_count_each_connection_once_and_in_its_bucket() {
    let greeter = Greeter::listen(b'a');
    let evenkeel = Evenkeel::start(&plain(&[greeter.address()]));
    visits(evenkeel.address(), 10);
    let (held, _) = greeted(evenkeel.address());
    evenkeel.ends(10);
    let scrape = Scrape::of(&evenkeel.api());
    for (name, count) in [
        ("evenkeel_connect_seconds", 11.0),
        ("evenkeel_connection_seconds", 10.0),
    ] {
        assert_eq!(
            scrape.value(&format!("{name}_count{{pool=\"web\"}}")),
            count
        );
        assert!(scrape.value(&format!("{name}_sum{{pool=\"web\"}}")) > 0.0);
        let bucket = format!("{name}_bucket");
        let in_order = scrape.text.lines().filter(|line| line.starts_with(&bucket));
        let counts: Vec<f64> = in_order
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(counts.len() > 10 && counts.is_sorted(), "{counts:?}");
        assert_eq!(counts.last(), Some(&count));
    }
    drop(held);
}

#[test]
fn a_check_that_fails_is_counted_and_takes_the_server_s_up_away() {
    let mut greeter = Greeter::listen(b'a');
    let pool = "    health: {type: tcp, interval: 50ms, fall: 2}";
    let config = crate::harness::with_health("workers: 1", pool, &[greeter.address()]);
    let evenkeel = Evenkeel::start(&config);
    let labels = format!("pool=\"web\",server=\"{}\"", greeter.address());
    let up = format!("evenkeel_server_up{{{labels}}}");
    assert_eq!(Scrape::of(&evenkeel.api()).value(&up), 1.0);
    greeter.stop();
    eventually("it is down", || {
        Scrape::of(&evenkeel.api()).value(&up) == 0.0
    });
    // What one scrape shows is not of one moment: only the next one has all of it.
    let scrape = Scrape::of(&evenkeel.api());
    assert!(scrape.value(&checks(&labels, "failed")) >= 2.0);
    assert!(scrape.value(&checks(&labels, "ok")) >= 1.0);
    assert_eq!(scrape.value("evenkeel_ready"), 0.0);
    assert!(scrape.value("evenkeel_prober_lag_seconds_count") >= 3.0);
    // The worker hears of it by itself; until then it tries the server.
    eventually("it is no server for the worker, too", || {
        evenkeel.connect().expect_reset();
        Scrape::of(&evenkeel.api()).value(&refused("no_server")) >= 1.0
    });
}

#[test]
fn a_pipe_that_holds_bytes_is_lent() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let client = connect_with_receive_buffer(4096, evenkeel.address());
    let mut serving = server.accept();
    serving.write_until_blocked(|buffer| buffer.fill(7));
    let lent = "evenkeel_pipes{state=\"lent\"}";
    assert_eq!(Scrape::of(&evenkeel.api()).value(lent), 1.0);
    drop(client);
    evenkeel.ends(1);
    assert_eq!(Scrape::of(&evenkeel.api()).value(lent), 0.0);
}

/// Listeners, pools and servers with every character that a name may have.
fn odd(servers: &[SocketAddr; 3]) -> String {
    let [a, b, c] = servers;
    let long = "x".repeat(128);
    format!(
        "workers: 2\n{BOTH}\nlisteners:\n  \"a.b-c_d:[e]\": {{bind: \"127.0.0.1:0\", pool: \"P.1\"}}\n\
         \x20 {long}: {{bind: [\"127.0.0.1:0\", \"127.0.0.1:0\"], pool: {long}}}\n\
         \x20 \"0\": {{bind: \"127.0.0.1:0\", pool: \"P.1\"}}\npools:\n\
         \x20 \"P.1\": {{health: off, servers: [{{name: \"[::1]:0\", address: \"{a}\"}}, \"{b}\"]}}\n\
         \x20 {long}: {{health: {{type: tcp, interval: 50ms}}, servers: [\"{c}\"]}}\n"
    )
}

#[test]
fn the_linter_is_silent_about_odd_names_and_leaving_servers_and_nothing_comes_twice() {
    let greeters = [b'a', b'b', b'c', b'd', b'e'].map(Greeter::listen);
    let address = |number: usize| greeters[number].address();
    let evenkeel = Evenkeel::start(&odd(&[address(0), address(1), address(2)]));
    let listener = evenkeel.addresses()[0].1;
    let api = evenkeel.api();
    Scrape::of(&api).is_approved();
    let servers = "/api/v1/pools/P.1/servers";
    let named = format!("{servers}/%5B%3A%3A1%5D%3A0");
    // The others drain, so that each new connection is with the newest of that name.
    let other = format!("{servers}/{}", address(1));
    api.send("PATCH", &other, r#"{"state":"draining"}"#)
        .expect(200);
    let mut held = vec![greeted(listener)];
    for number in [3, 4] {
        // A pool keeps one server at least: the next one goes by a name of its own for a moment.
        api.send("PATCH", &other, r#"{"state":"up"}"#).expect(200);
        api.ask("DELETE", &format!("{named}?rate=1/s&quiet=1h&deadline=2h"))
            .expect(204);
        let body = format!(r#"{{"name":"[::1]:0","address":"{}"}}"#, address(number));
        api.send("POST", servers, &body).expect(201);
        api.send("PATCH", &other, r#"{"state":"draining"}"#)
            .expect(200);
        Scrape::of(&api).is_approved();
        held.push(greeted(listener));
    }
    let names: Vec<_> = held.iter().map(|(_, name)| char::from(*name)).collect();
    assert_eq!(names, ['a', 'd', 'e']);
    let labels = r#"pool="P.1",server="[::1]:0""#;
    let total = format!("evenkeel_server_connections_total{{{labels}}}");
    let active = format!("evenkeel_server_connections_active{{{labels}}}");
    let scrape = Scrape::of(&evenkeel.http());
    scrape.is_approved();
    assert_eq!((scrape.value(&total), scrape.value(&active)), (3.0, 3.0));
    // All three that bear the name are leaving, and no other is left of it.
    api.send("PATCH", &other, r#"{"state":"up"}"#).expect(200);
    api.ask("DELETE", &format!("{named}?rate=1/s&quiet=1h&deadline=2h"))
        .expect(204);
    let scrape = Scrape::of(&api);
    scrape.is_approved();
    assert_eq!(scrape.value(&active), 3.0);
    assert!(
        !scrape
            .series
            .contains_key(&format!("evenkeel_server_up{{{labels}}}"))
    );
    assert_eq!(
        scrape.sum("evenkeel_server_drain_connections"),
        2.0,
        "{}",
        scrape.text
    );
    drop(held);
    eventually("its series go with its last connection", || {
        !Scrape::of(&api).series.contains_key(&total)
    });
    Scrape::of(&api).is_approved();
}

#[test]
fn counters_do_not_go_back_over_a_reload() {
    let (a, b) = (Greeter::listen(b'a'), Greeter::listen(b'b'));
    let config = |weight: u32, line: &str| {
        format!(
            "workers: 2\n{BOTH}\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: web{line}}}\n\
             pools:\n  web:\n    health: {{type: tcp, interval: 100ms}}\n    servers:\n\
             \x20     - {{name: a, address: {}, weight: {weight}}}\n      - {{name: b, address: {}}}\n",
            a.address(),
            b.address()
        )
    };
    let evenkeel = Evenkeel::start(&config(1, ""));
    let mut held = Vec::new();
    for round in 1..=6 {
        visits(evenkeel.address(), 5);
        held.push(greeted(evenkeel.address()));
        let before = Scrape::of(&evenkeel.api());
        let line = if round % 2 == 0 {
            ""
        } else {
            ", idle_timeout: 5m"
        };
        evenkeel.rewrite(&config(round, line));
        evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
        let after = Scrape::of(&evenkeel.api());
        for (series, value) in &before.series {
            let metric = metric_of(&before, series).unwrap();
            if before.kinds[metric] != "gauge" {
                let now = after.value(series);
                assert!(now >= *value, "{series}: {now} after {value}");
            }
        }
        assert_eq!(after.kinds, before.kinds);
    }
    let after = Scrape::of(&evenkeel.api());
    let connections = f64::from(6 * 6);
    assert_eq!(after.sum("evenkeel_server_connections_total"), connections);
    assert_eq!(
        after.sum("evenkeel_listener_connections_total"),
        connections
    );
    assert_eq!(after.value("evenkeel_connections_total"), connections);
    assert_eq!(after.sum("evenkeel_server_connections_active"), 6.0);
    assert_eq!(
        after.value("evenkeel_server_weight{pool=\"web\",server=\"a\"}"),
        6.0
    );
}

/// What the manual says of each metric: its kind and its labels.
fn documented() -> BTreeMap<&'static str, (&'static str, BTreeSet<&'static str>)> {
    let rows = MANUAL.lines().filter(|line| line.starts_with("| `"));
    let read = |row: &'static str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[1].trim_matches('`'), (cells[2], labels))
    };
    rows.map(read).collect()
}

#[test]
fn the_manual_names_what_a_scrape_shows_and_nothing_else() {
    let greeter = Greeter::listen(b'a');
    let health = "    health: {type: tcp, interval: 1s}";
    let config =
        crate::harness::with_health(&format!("workers: 1\n{BOTH}"), health, &[greeter.address()]);
    let evenkeel = Evenkeel::start(&config);
    let _client = greeted(evenkeel.address());
    let path = format!("/api/v1/pools/web/servers/{}", greeter.address());
    // A drain is shown while it is under way.
    evenkeel
        .api()
        .send("PATCH", &path, r#"{"state":"draining"}"#)
        .expect(200);
    let scrape = Scrape::of(&evenkeel.api());
    let mut shown = BTreeMap::new();
    for (name, kind) in &scrape.kinds {
        let mut labels: Vec<_> = scrape
            .of_metric(name)
            .map(|(series, _)| labels_of(series))
            .collect();
        labels.dedup();
        assert_eq!(
            labels.len(),
            1,
            "{name} has the same labels everywhere: {labels:?}"
        );
        shown.insert(&**name, (&**kind, labels.remove(0)));
    }
    assert_eq!(shown, documented());
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = MANUAL
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("evenkeel_"));
    for word in words {
        assert!(
            metric_of(&scrape, word).is_some(),
            "{word} is in the manual alone"
        );
    }
}

#[test]
fn a_thousand_servers_fit_into_one_scrape() {
    let greeter = Greeter::listen(b'a');
    let mut config = format!(
        "workers: 2\n{BOTH}\nlisteners:\n  web: {{bind: \"127.0.0.1:0\", pool: real}}\npools:\n\
         \x20 real: {{health: off, servers: [\"{}\"]}}\n",
        greeter.address()
    );
    for pool in 1..=POOLS {
        config += &format!("  p{pool}:\n    health: off\n    servers:\n");
        for server in 1..=SERVERS {
            config += &format!("      - {{name: s{server}, address: 10.0.{pool}.{server}:80}}\n");
        }
    }
    let evenkeel = Evenkeel::start(&config);
    visits(evenkeel.address(), 3);
    for api in [evenkeel.api(), evenkeel.http()] {
        let scrape = Scrape::of(&api);
        assert_eq!(
            scrape.of_metric("evenkeel_server_up").count(),
            POOLS * SERVERS + 1
        );
        assert_eq!(scrape.sum("evenkeel_server_connections_total"), 3.0);
        scrape.is_approved();
    }
}
