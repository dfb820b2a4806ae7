//! The metrics of a roster with something of everything: each is documented, no series comes twice,
//! and the linter of Prometheus, where it is installed, has nothing to say.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::harness::{Site, WORKERS, pool, roster, server};
use crate::admin::metrics;
use crate::clock::Now;
use crate::end::End;
use crate::pool::drain::{Drain, Pace, Scope};
use crate::roster::{Leaving, Roster, Standing};
use crate::telemetry::checkup::Checked;
use crate::telemetry::counters::ConnectFailure;

const MANUAL: &str = include_str!("../../../docs/metrics.md");

/// A server that was removed, one that was removed and added again, and drains.
fn eventful() -> Roster {
    let mut roster = roster();
    let drain = || {
        let pace = Pace::PATIENT;
        Arc::new(Drain::new(
            Scope::Everything,
            End::Drained,
            pace,
            9,
            Now::default(),
        ))
    };
    let a = &mut roster.pools[0].servers[1];
    (a.standing, a.drain) = (Standing::Draining, Some(drain()));
    a.tally.workers()[0].upstream_bytes.add(5);
    a.tally.workers()[1].failed(ConnectFailure::TimedOut).add(2);
    a.tally
        .checkup()
        .note_check(Checked::Failed, true, String::new);
    for (id, name) in [(5, "a"), (6, "a"), (7, "old"), (8, "old")] {
        let mut gone = server(id, name);
        gone.drain = Some(drain());
        gone.tally.reserve(9, None);
        gone.tally.workers()[0].upstream_bytes.add(100);
        roster.leaving.push(Leaving {
            pool: "web".into(),
            server: gone,
        });
    }
    let listener = &roster.listeners[0].tally.workers()[0];
    listener.accepted.add(3);
    listener.refused(End::NoServer).add(1);
    let worker = &roster.pools[0].tally.workers()[1];
    worker.connect.observe(Duration::from_micros(200));
    worker.connect.observe(Duration::from_secs(7200));
    roster
}

fn scrape() -> String {
    let site = Site::new();
    site.shared.board.publish(eventful());
    site.shared.counters[0].accepted.add(3);
    site.shared.counters[1].ended(End::ClientClosed).add(2);
    site.shared.counters[1].pipes_lent.set(1);
    site.shared.ledger.admit(1);
    site.shared.lag.record(Duration::from_micros(100));
    let reply = site.ask("GET", "/metrics", "");
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    reply.body
}

#[test]
fn series_have_their_labels_and_their_values() {
    let text = scrape();
    for line in [
        "evenkeel_build_info{version=\"0.1.0\"} 1",
        "evenkeel_ready 1",
        "evenkeel_config_differs 0",
        "evenkeel_connections_active 1",
        "evenkeel_connections_max 9000",
        "evenkeel_connections_total 3",
        "evenkeel_connections_ended_total{end=\"client_closed\"} 2",
        "evenkeel_connections_ended_total{end=\"killed\"} 0",
        "evenkeel_worker_connections{worker=\"1\"} 1",
        "evenkeel_pipes{state=\"lent\"} 1",
        "evenkeel_listener_connections_total{listener=\"web\"} 3",
        "evenkeel_listener_connections_active{listener=\"web\"} 3",
        "evenkeel_listener_connections_refused_total{listener=\"web\",reason=\"no_server\"} 1",
        "evenkeel_server_up{pool=\"web\",server=\"b\"} 1",
        "evenkeel_server_up{pool=\"web\",server=\"a\"} 0",
        "evenkeel_server_taken_out{pool=\"web\",server=\"a\"} 1",
        "evenkeel_server_taken_out{pool=\"web\",server=\"b\"} 0",
        "evenkeel_pool_queue_limit{pool=\"web\"} 0",
        "evenkeel_upgrades_failed_total 0",
        "evenkeel_server_weight{pool=\"db\",server=\"127.0.0.1:9003\"} 1",
        // Its own 5 and those of two earlier bearers of the name.
        "evenkeel_bytes_total{pool=\"web\",server=\"a\",direction=\"upstream\"} 205",
        "evenkeel_server_connections_active{pool=\"web\",server=\"a\"} 2",
        "evenkeel_server_connections_active{pool=\"web\",server=\"old\"} 2",
        "evenkeel_server_connections_failed_total{pool=\"web\",server=\"a\",reason=\"timed_out\"} 2",
        "evenkeel_health_checks_total{pool=\"web\",server=\"a\",result=\"failed\"} 1",
        "evenkeel_server_drain_connections{pool=\"web\",server=\"a\",state=\"began_with\"} 9",
        "evenkeel_server_drain_connections{pool=\"web\",server=\"old\",state=\"left\"} 1",
        "evenkeel_connect_seconds_bucket{pool=\"web\",le=\"0.0001\"} 0",
        "evenkeel_connect_seconds_bucket{pool=\"web\",le=\"0.00025\"} 1",
        "evenkeel_connect_seconds_bucket{pool=\"web\",le=\"3600\"} 1",
        "evenkeel_connect_seconds_bucket{pool=\"web\",le=\"+Inf\"} 2",
        "evenkeel_connect_seconds_sum{pool=\"web\"} 7200.0002",
        "evenkeel_connect_seconds_count{pool=\"web\"} 2",
        "evenkeel_prober_lag_seconds_bucket{le=\"0.000064\"} 0",
        "evenkeel_prober_lag_seconds_bucket{le=\"0.000128\"} 1",
        "evenkeel_prober_lag_seconds_sum 0.0001",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // A leaving server cannot be picked.
    assert!(!text.contains("evenkeel_server_up{pool=\"web\",server=\"old\"}"));
}

#[test]
fn no_series_comes_twice() {
    let text = scrape();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let mut seen = BTreeSet::new();
    for series in series.map(|line| line.rsplit_once(' ').unwrap().0) {
        assert!(seen.insert(series), "{series}");
    }
}

#[test]
fn each_metric_is_documented_and_each_documented_one_is_there() {
    let text = scrape();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let shown: BTreeSet<_> = families.map(|line| line.split_once(' ').unwrap()).collect();
    let rows = MANUAL.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<_> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let name = cells.next().unwrap().trim_matches('`');
            (name, cells.next().unwrap())
        })
        .collect();
    assert_eq!(shown, documented);
}

#[test]
fn the_linter_of_prometheus_is_silent() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: promtool is not installed");
            return;
        }
        spawned => spawned.unwrap(),
    };
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(scrape().as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    assert!(output.status.success());
}

#[test]
fn a_large_scrape_is_measured() {
    let site = Site::new();
    let servers = (0..1000).map(|id| server(id, &format!("server-{id}")));
    let large = Roster {
        pools: vec![pool(0, "web", servers.collect())],
        ..roster()
    };
    site.shared.board.publish(large);
    let started = std::time::SystemTime::UNIX_EPOCH;
    let text = || metrics::text(&site.shared, started, Now::read()).unwrap();
    text();
    let before = Now::read();
    let size = text().len();
    let took = Now::read().since(before);
    // Not asserted: in a debug build on a busy machine it says little.
    eprintln!("1,000 servers, {WORKERS} workers: {size} bytes in {took:?}");
    assert!(size > 1000);
}
