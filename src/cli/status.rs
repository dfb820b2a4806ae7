//! `evenkeel status`: how it is in the first lines, then listeners, then pools with their servers.

use super::figures::{bytes, drain, found_by, holds, plain, seconds};
use super::output::{Paper, Tone, print, print_json};
use super::remote::Remote;
use super::table::{Cell, Column, Table, Yield};
use super::view::{Leaving, Pool, Queue, Server, Source, Status};
use crate::units::counted;

/// The stage in which nothing is served yet.
const STARTING: &str = "starting";

const LISTENER_COLUMNS: &[Column] = &[
    Column::text("LISTENER", Yield::Shrinks(12)),
    Column::text("POOL", Yield::Shrinks(8)),
    Column::number("ACTIVE", Yield::Never),
    Column::number("MAX", Yield::Never),
    Column::number("TOTAL", Yield::Never),
    Column::number("REFUSED", Yield::Never),
    Column::text("BIND", Yield::Shrinks(16)),
];

const SERVER_COLUMNS: &[Column] = &[
    Column::text("POOL/SERVER", Yield::Shrinks(14)),
    Column::text("ADDRESS", Yield::Goes(1)),
    Column::text("STATE", Yield::Never),
    Column::number("WEIGHT", Yield::Goes(4)),
    Column::number("ACTIVE", Yield::Never),
    Column::number("TOTAL", Yield::Goes(3)),
    Column::number("FAILED", Yield::Never),
    Column::number("UP", Yield::Goes(2)),
    Column::number("DOWN", Yield::Goes(2)),
    Column::text("HEALTH", Yield::Shrinks(12)),
];

/// Shows it once.
///
/// # Errors
/// Where nobody answers.
pub(super) fn status(remote: &Remote, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return print_json(&remote.fetch("/api/v1/status")?);
    }
    print(&shown(&remote.status()?, Paper::standard()))
}

fn shown(status: &Status, paper: Paper) -> String {
    let mut text = summary(status, paper);
    text.push('\n');
    text.push_str(&listeners(status).shown(paper));
    text.push('\n');
    text.push_str(&servers(status).shown(paper));
    text
}

/// How it is, and why; where its configuration comes from, and whether it still is that.
fn summary(status: &Status, paper: Paper) -> String {
    let mut text = format!(
        "evenkeel {}: {}, up {}, {}, {} of {} connections\n",
        plain(&status.version),
        readiness(status, paper),
        seconds(status.uptime_seconds),
        counted(status.workers, "worker"),
        status.connections.active,
        status.connections.max,
    );
    if status.upgrades > 0 {
        // Whoever started the first one has a number that is nobody's by now.
        let (pid, upgrades) = (status.pid, counted(status.upgrades, "upgrade"));
        text.push_str(&format!("process {pid}, after {upgrades}\n"));
    }
    if status.stage == STARTING {
        let note = "starting: nothing listens before each server has had its first health check";
        text.push_str(&format!("  {}\n", paper.paint(Tone::Warning, note)));
    }
    // A stage that is not serving is the only reason there is, and has been said.
    let is_said = |reason: &String| status.ready || *reason == status.stage;
    for reason in status.reasons.iter().filter(|reason| !is_said(reason)) {
        text.push_str(&format!("  {}\n", paper.paint(Tone::Bad, &plain(reason))));
    }
    text.push_str(&source(&status.config, paper));
    text
}

fn readiness(status: &Status, paper: Paper) -> String {
    match status.stage.as_str() {
        _ if status.ready => paper.paint(Tone::Good, "ready"),
        "" | "serving" => paper.paint(Tone::Bad, "not ready"),
        stage => paper.paint(Tone::Warning, &format!("not ready ({})", plain(stage))),
    }
}

fn source(config: &Source, paper: Paper) -> String {
    let mut text = match &config.file {
        Some(file) => format!("configuration: {}", plain(file)),
        None => "configuration: from arguments, no file".to_owned(),
    };
    if config.differs.is_empty() {
        text.push('\n');
    } else {
        let count = counted(config.differs.len() as u64, "difference");
        let note = format!("running with {count} from it:");
        text.push_str(&format!(", {}\n", paper.paint(Tone::Warning, &note)));
    }
    for difference in &config.differs {
        text.push_str(&format!("  {}\n", plain(difference)));
    }
    if let Some(left) = config.confirm_seconds {
        let note = format!(
            "a reload awaits confirmation: taken back in {}, to keep it: evenkeel confirm",
            seconds(left)
        );
        text.push_str(&format!("{}\n", paper.paint(Tone::Warning, &note)));
    }
    text
}

fn listeners(status: &Status) -> Table {
    let mut table = Table::new(LISTENER_COLUMNS);
    for (name, listener) in status.listeners.iter() {
        let max = listener.connections.max;
        table.row(vec![
            name.into(),
            (&listener.pool).into(),
            listener.connections.active.to_string().into(),
            max.map_or("-".to_owned(), |max| max.to_string()).into(),
            listener.connections.total.to_string().into(),
            listener.connections.refused.to_string().into(),
            listener.bind.join(", ").into(),
        ]);
    }
    table
}

fn servers(status: &Status) -> Table {
    let mut table = Table::new(SERVER_COLUMNS);
    for (name, pool) in status.pools.iter() {
        let (line, tone) = pool_line(name, pool);
        table.line(&line, tone);
        for source in &pool.discovery {
            let tone = match source.last.as_str() {
                "ok" => Tone::Plain,
                _ => Tone::Warning,
            };
            table.line(&format!("  {}", found_by(source)), tone);
        }
        for (name, server) in pool.servers.iter() {
            table.row(server_cells(name, server));
            for line in holds(server) {
                table.line(&format!("      {line}"), Tone::Warning);
            }
            if let Some(going) = server.drain.as_ref().filter(|going| going.left > 0) {
                table.line(&format!("      {}", drain(going)), Tone::Warning);
            }
        }
    }
    if !status.leaving.is_empty() {
        table.line("removed, and still with connections", Tone::Plain);
    }
    for leaving in &status.leaving {
        table.row(leaving_cells(leaving));
        if let Some(going) = &leaving.drain {
            table.line(&format!("      {}", drain(going)), Tone::Warning);
        }
    }
    table
}

/// A pool, and what is out of the ordinary with it.
fn pool_line(name: &str, pool: &Pool) -> (String, Tone) {
    let mut line = format!("{name}  {}", pool.algorithm);
    let mut tone = Tone::Plain;
    if pool.queue.limit > 0 || pool.queue.waiting > 0 {
        let Queue { waiting, limit } = pool.queue;
        line.push_str(&format!(", {waiting} of {limit} waiting"));
    }
    if pool.failing_open {
        line.push_str(", all down and used anyway (fail_open)");
        tone = Tone::Bad;
    }
    (line, tone)
}

fn server_cells(name: &str, server: &Server) -> Vec<Cell> {
    let mut state = server.state.clone();
    if server.backup {
        state.push_str(" backup");
    }
    let active = match server.max_connections {
        Some(max) => format!("{}/{max}", server.connections.active),
        None => server.connections.active.to_string(),
    };
    let weight = match server.health.share_percent {
        Some(percent) => format!("{} at {percent}%", server.weight),
        None => server.weight.to_string(),
    };
    vec![
        format!("  {name}").into(),
        // Said once is enough.
        if name == server.address {
            ""
        } else {
            &server.address
        }
        .into(),
        Cell::toned(&state, Tone::of_state(&server.state)),
        weight.into(),
        active.into(),
        server.connections.total.to_string().into(),
        server.connections.failed.to_string().into(),
        bytes(server.bytes.upstream).into(),
        bytes(server.bytes.downstream).into(),
        health(server),
    ]
}

fn leaving_cells(leaving: &Leaving) -> Vec<Cell> {
    vec![
        format!("  {}/{}", leaving.pool, leaving.server).into(),
        if leaving.server == leaving.address {
            ""
        } else {
            &leaving.address
        }
        .into(),
        Cell::toned("leaving", Tone::of_state("leaving")),
        "".into(),
        leaving.connections.active.to_string().into(),
        leaving.connections.total.to_string().into(),
        leaving.connections.failed.to_string().into(),
        bytes(leaving.bytes.upstream).into(),
        bytes(leaving.bytes.downstream).into(),
        "".into(),
    ]
}

/// What the last check said, and for how long the server has been up or down.
fn health(server: &Server) -> Cell {
    let health = &server.health;
    let mut text = health.reason.clone();
    if let Some(since) = health.since_seconds.filter(|_| health.last != "off") {
        text.push_str(&format!(", {}", seconds(since)));
    }
    // A check that failed while the server still counts as up is news; the state says the rest.
    let is_news = health.last == "failed" && server.state == "up";
    Cell::toned(&text, if is_news { Tone::Warning } else { Tone::Plain })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::view::tests::example;

    fn lines(answer: Value, width: Option<usize>) -> Vec<String> {
        let status = serde_json::from_value(answer).unwrap();
        let paper = Paper {
            width,
            ..Paper::default()
        };
        shown(&status, paper).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_wide_status_has_everything() {
        assert_eq!(
            lines(example(), None),
            [
                "evenkeel 0.1.0: ready, up 3h12m, 2 workers, 83 of 9000 connections",
                "configuration: /etc/evenkeel/evenkeel.yaml, running with 1 difference from it:",
                "  server web/a: weight 1 -> 3",
                "",
                "LISTENER  POOL  ACTIVE  MAX  TOTAL  REFUSED  BIND",
                "web       web       83    -    812        0  127.0.0.1:8080",
                "",
                "POOL/SERVER       ADDRESS         STATE     WEIGHT  ACTIVE  TOTAL  FAILED    UP  DOWN  HEALTH",
                "web  round_robin",
                "  b               127.0.0.1:9001  up             1       2    400       0  1.2K   20M  http 200, 9.1s",
                "  a               127.0.0.1:9002  draining       1      80    400       0  1.2K   20M  http 200, 9.1s",
                "      80 of 120 left, 30 closed, done in about 4s, at 20/s, the rest in 6m52s",
                "db  least_connections",
                "  127.0.0.1:9003                  down           1       0    400       0  1.2K   20M  connection refused, 1h6m",
                "removed, and still with connections",
                "  web/old         127.0.0.1:9009  leaving                1     90       2     1     2",
                "      1 of 4 left, nobody is cut",
            ]
        );
    }

    #[test]
    fn eighty_columns_are_enough() {
        let lines = lines(example(), Some(80));
        assert_eq!(
            lines,
            [
                "evenkeel 0.1.0: ready, up 3h12m, 2 workers, 83 of 9000 connections",
                "configuration: /etc/evenkeel/evenkeel.yaml, running with 1 difference from it:",
                "  server web/a: weight 1 -> 3",
                "",
                "LISTENER  POOL  ACTIVE  MAX  TOTAL  REFUSED  BIND",
                "web       web       83    -    812        0  127.0.0.1:8080",
                "",
                "POOL/SERVER      STATE    WEIGHT ACTIVE TOTAL FAILED   UP DOWN HEALTH",
                "web  round_robin",
                "  b              up            1      2   400      0 1.2K  20M http 200, 9.1s",
                "  a              draining      1     80   400      0 1.2K  20M http 200, 9.1s",
                "      80 of 120 left, 30 closed, done in about 4s, at 20/s, the rest in 6m52s",
                "db  least_connections",
                "  127.0.0.1:9003 down          1      0   400      0 1.2K  20M connection refu..",
                "removed, and still with connections",
                "  web/old        leaving              1    90      2    1    2",
                "      1 of 4 left, nobody is cut",
            ]
        );
    }

    #[test]
    fn after_an_upgrade_the_process_is_named() {
        let mut answer = example();
        answer["pid"] = json!(71234);
        let is_named = |line: &String| line.starts_with("process ");
        assert!(!lines(answer.clone(), None).iter().any(is_named));
        answer["upgrades"] = json!(2);
        assert_eq!(lines(answer, None)[1], "process 71234, after 2 upgrades");
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut answer = example();
        answer["ready"] = json!(false);
        answer["reasons"] = json!(["pool db has no server that is up"]);
        answer["config"] = json!({"file": null, "differs": [], "confirm_seconds": 42.0});
        assert_eq!(
            lines(answer, None)[..4],
            [
                "evenkeel 0.1.0: not ready, up 3h12m, 2 workers, 83 of 9000 connections",
                "  pool db has no server that is up",
                "configuration: from arguments, no file",
                "a reload awaits confirmation: taken back in 42s, to keep it: evenkeel confirm",
            ]
        );
    }

    #[test]
    fn what_keeps_connections_away_is_told_below() {
        let mut answer = example();
        answer["listeners"]["web"]["connections"]["max"] = json!(100);
        let server = &mut answer["pools"]["web"]["servers"]["b"];
        server["slow_start"] = json!({"percent": 40, "until_seconds": 36.0});
        let lines = lines(answer, None);
        assert!(
            lines.iter().any(|line| line.contains(" 83  100 ")),
            "{lines:#?}"
        );
        let place = lines.iter().position(|line| line.starts_with("  b "));
        let below = &lines[place.unwrap() + 1];
        assert_eq!(
            below,
            "      slow start: 40% of its share, all of it in 36s"
        );
    }
}
