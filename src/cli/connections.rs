//! `evenkeel connections`: who is connected to what, for how long, how fast, and who limits it.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::Value;

use super::arguments::ConnectionsArguments;
use super::figures::{bytes, bytes_per_second, milliseconds, seconds};
use super::output::{Paper, print, print_json};
use super::path::with_query;
use super::remote::{Remote, understood};
use super::table::{Cell, Column, Table, Yield};
use super::view::Bytes;
use crate::units::counted;

/// Long enough for a rate that means something, short enough to wait for.
const SAMPLE: &str = "500ms";

/// What comes first in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// The order in which they came.
    #[default]
    Id,
    /// The oldest.
    Age,
    /// The longest without a byte.
    Idle,
    /// The most bytes, both ways.
    Bytes,
    /// The most bytes a second, both ways.
    Rate,
    /// The most retransmits, both sides.
    Retransmits,
    /// The most bytes that wait for a socket to take them, both sides.
    Unsent,
}

impl Order {
    /// Both directions, or both sides, count together; what is unknown counts as none.
    fn key(self, connection: &Value) -> f64 {
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let sum = |pair: &Value| {
            let values = pair.as_object().into_iter().flat_map(|pair| pair.values());
            values.map(number).sum()
        };
        match self {
            // The smallest first, unlike all others.
            Self::Id => -number(&connection["id"]),
            Self::Age => number(&connection["age_seconds"]),
            Self::Idle => number(&connection["idle_seconds"]),
            Self::Bytes => sum(&connection["bytes"]),
            Self::Rate => sum(&connection["bytes_per_second"]),
            Self::Retransmits => sum(&connection["retransmits"]),
            Self::Unsent => sum(&connection["unsent_bytes"]),
        }
    }
}

/// One of `GET /api/v1/connections`; what the kernel did not tell is `None`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Connection {
    id: u64,
    client: String,
    /// `None` while it reads what the pool is chosen by.
    pool: Option<String>,
    /// `None` before one was picked.
    server: Option<String>,
    phase: String,
    age_seconds: f64,
    idle_seconds: f64,
    bytes: Bytes,
    bytes_per_second: Option<Rates>,
    limited_by: Option<String>,
    rtt_ms: Option<Sides<f64>>,
    retransmits: Option<Sides<u64>>,
    unsent_bytes: Option<Sides<u64>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Rates {
    upstream: f64,
    downstream: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Sides<T> {
    client: Option<T>,
    server: Option<T>,
}

const COLUMNS: &[Column] = &[
    Column::number("ID", Yield::Never),
    Column::number("AGE", Yield::Never),
    Column::number("IDLE", Yield::Goes(7)),
    Column::text("CLIENT", Yield::Never),
    Column::text("SERVER", Yield::Shrinks(10)),
    Column::text("PHASE", Yield::Goes(1)),
    Column::number("UP", Yield::Goes(5)),
    Column::number("DOWN", Yield::Goes(5)),
    Column::number("UP/S", Yield::Goes(6)),
    Column::number("DOWN/S", Yield::Goes(6)),
    Column::text("RTT MS", Yield::Goes(4)),
    Column::text("RETRANS", Yield::Goes(3)),
    Column::text("UNSENT", Yield::Goes(2)),
    Column::text("LIMITED BY", Yield::Never),
];

/// The pool and the server that are meant: a server may be named as the list shows it, POOL/SERVER.
fn meant(arguments: &ConnectionsArguments) -> (Option<String>, Option<String>) {
    let whole = arguments.server.as_deref();
    // A pool's name has no colon in it, the address of a unix server begins with one.
    let pair = whole
        .and_then(|server| server.split_once('/'))
        .filter(|(pool, _)| !pool.contains(':'));
    match pair {
        Some((pool, server)) if arguments.pool.is_none() => {
            (Some(pool.to_owned()), Some(server.to_owned()))
        }
        _ => (arguments.pool.clone(), arguments.server.clone()),
    }
}

/// Shows them once.
///
/// # Errors
/// Where nobody answers.
pub(super) fn connections(remote: &Remote, arguments: &ConnectionsArguments) -> anyhow::Result<()> {
    // The process cuts its list by id: any other order needs all of them.
    let is_cut_there = arguments.sort == Order::Id;
    let limit = arguments.limit.filter(|_| is_cut_there);
    let (pool, server) = meant(arguments);
    let query = [
        ("pool", pool),
        ("server", server),
        ("sample", Some(SAMPLE.to_owned())),
        ("limit", limit.map(|limit| limit.to_string())),
    ];
    let answer = remote.fetch(&with_query("/api/v1/connections", &query))?;
    let Value::Array(list) = answer else {
        bail!("evenkeel answered no list: use the command of the same version");
    };
    let list = sorted(list, arguments);
    if arguments.output.json {
        return print_json(&Value::Array(list));
    }
    print(&shown(
        &understood::<Vec<Connection>>(Value::Array(list))?,
        Paper::standard(),
    ))
}

fn sorted(mut list: Vec<Value>, arguments: &ConnectionsArguments) -> Vec<Value> {
    list.sort_by_cached_key(|connection| Descending(arguments.sort.key(connection)));
    let limit = arguments
        .limit
        .and_then(|limit| usize::try_from(limit).ok());
    list.truncate(limit.unwrap_or(usize::MAX));
    list
}

/// A key that puts the largest number first.
#[derive(PartialEq)]
struct Descending(f64);

impl Eq for Descending {}

impl Ord for Descending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl PartialOrd for Descending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn shown(list: &[Connection], paper: Paper) -> String {
    let mut table = Table::new(COLUMNS);
    for connection in list {
        table.row(cells(connection));
    }
    let mut text = String::new();
    if !list.is_empty() {
        text.push_str(&table.shown(paper));
        text.push('\n');
    }
    text.push_str(&summary(list));
    text
}

fn cells(connection: &Connection) -> Vec<Cell> {
    let rates = connection.bytes_per_second;
    let rate = |of: fn(&Rates) -> f64| {
        rates
            .as_ref()
            .map(of)
            .map_or("-".to_owned(), bytes_per_second)
    };
    vec![
        connection.id.to_string().into(),
        seconds(connection.age_seconds).into(),
        seconds(connection.idle_seconds).into(),
        (&connection.client).into(),
        server(connection).into(),
        (&connection.phase).into(),
        bytes(connection.bytes.upstream).into(),
        bytes(connection.bytes.downstream).into(),
        rate(|rates| rates.upstream).into(),
        rate(|rates| rates.downstream).into(),
        both(connection.rtt_ms, milliseconds).into(),
        both(connection.retransmits, |count| count.to_string()).into(),
        both(connection.unsent_bytes, bytes).into(),
        connection.limited_by.as_deref().unwrap_or("-").into(),
    ]
}

/// By the names of its pool and its own, `-` for each that is not there yet.
fn server(connection: &Connection) -> String {
    let own = connection.server.as_deref().unwrap_or("-");
    match &connection.pool {
        Some(pool) => format!("{pool}/{own}"),
        None => own.to_owned(),
    }
}

/// The client's and the server's, `-` where it is not known.
fn both<T>(sides: Option<Sides<T>>, show: fn(T) -> String) -> String {
    let (client, server) = sides.map_or((None, None), |sides| (sides.client, sides.server));
    let [client, server] = [client, server].map(|side| side.map_or("-".to_owned(), show));
    format!("{client}/{server}")
}

/// How many there are, and how many each party limits.
fn summary(list: &[Connection]) -> String {
    let mut limiters: BTreeMap<&str, u64> = BTreeMap::new();
    for connection in list {
        let limiter = connection.limited_by.as_deref().unwrap_or("nobody known");
        *limiters.entry(limiter).or_default() += 1;
    }
    let mut limiters: Vec<_> = limiters.into_iter().collect();
    limiters.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let parts: Vec<_> = limiters
        .into_iter()
        .map(|(limiter, count)| format!("{count} by {limiter}"))
        .collect();
    let count = counted(list.len() as u64, "connection");
    match parts.as_slice() {
        [] => format!("{count}\n"),
        parts => format!("{count}, limited: {}\n", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::arguments::OutputArguments;

    fn example() -> Vec<Value> {
        vec![
            json!({"id": 17, "listener": "web", "client": "127.0.0.1:51234", "pool": "web",
                "server": "a", "server_address": "127.0.0.1:9001", "local": "127.0.0.1:40000",
                "phase": "relaying", "age_seconds": 3.2, "idle_seconds": 0.1,
                "bytes": {"upstream": 10, "downstream": 2_000_000},
                "bytes_per_second": {"upstream": 0.0, "downstream": 1_500_000.0},
                "limited_by": "client", "rtt_ms": {"client": 0.1, "server": 12.25},
                "retransmits": {"client": 0, "server": 3},
                "unsent_bytes": {"client": 65536, "server": 0}}),
            json!({"id": 18, "listener": "web", "client": "[::1]:51235", "pool": "web",
                "server": null, "phase": "connecting", "age_seconds": 90.0, "idle_seconds": 90.0,
                "bytes": {"upstream": 0, "downstream": 0},
                "bytes_per_second": {"upstream": 0.0, "downstream": 0.0},
                "limited_by": "server", "rtt_ms": {"client": 0.1, "server": null},
                "retransmits": null, "unsent_bytes": {"client": null, "server": null}}),
        ]
    }

    fn lines(list: Vec<Value>, width: Option<usize>) -> Vec<String> {
        let list: Vec<_> = understood(Value::Array(list)).unwrap();
        let paper = Paper {
            width,
            ..Paper::default()
        };
        shown(&list, paper).lines().map(str::to_owned).collect()
    }

    fn wish(sort: Order, limit: Option<u32>) -> ConnectionsArguments {
        ConnectionsArguments {
            pool: None,
            server: None,
            sort,
            limit,
            output: OutputArguments { json: false },
        }
    }

    #[test]
    fn a_wide_list_has_everything() {
        assert_eq!(
            lines(example(), None),
            [
                "ID    AGE   IDLE  CLIENT           SERVER  PHASE       UP  DOWN  UP/S  DOWN/S  RTT MS   RETRANS  UNSENT  LIMITED BY",
                "17   3.2s   0.1s  127.0.0.1:51234  web/a   relaying    10  1.9M     0    1.4M  0.10/12  0/3      64K/0   client",
                "18  1m30s  1m30s  [::1]:51235      web/-   connecting   0     0     0       0  0.10/-   -/-      -/-     server",
                "",
                "2 connections, limited: 1 by client, 1 by server",
            ]
        );
    }

    #[test]
    fn who_limits_is_shown_on_any_width() {
        let lines = lines(example(), Some(80));
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
        assert!(
            lines[1].ends_with("client") && lines[2].ends_with("server"),
            "{lines:#?}"
        );
    }

    #[test]
    fn who_has_no_pool_yet_is_shown_without_one() {
        let mut list = example();
        list[1]["pool"] = Value::Null;
        list[1]["phase"] = "reading_header".into();
        let lines = lines(list, None);
        let cells: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(cells[3..6], ["[::1]:51235", "-", "reading_header"]);
    }

    #[test]
    fn a_server_is_named_with_its_pool_or_without() {
        let meant = |pool: Option<&str>, server: &str| {
            let mut arguments = wish(Order::Id, None);
            arguments.pool = pool.map(str::to_owned);
            arguments.server = Some(server.to_owned());
            let (pool, server) = meant(&arguments);
            (pool.unwrap_or_default(), server.unwrap_or_default())
        };
        let pair = |pool: &str, server: &str| (pool.to_owned(), server.to_owned());
        assert_eq!(meant(None, "a"), pair("", "a"));
        assert_eq!(meant(None, "web/a"), pair("web", "a"));
        assert_eq!(meant(None, "unix:/run/a"), pair("", "unix:/run/a"));
        assert_eq!(meant(None, "web/unix:/run/a"), pair("web", "unix:/run/a"));
        let both = meant(Some("web"), "unix:/run/a");
        assert_eq!(both, pair("web", "unix:/run/a"));
    }

    #[test]
    fn an_empty_list_has_no_table() {
        assert_eq!(lines(vec![], None), ["0 connections"]);
    }

    #[test]
    fn the_most_comes_first_except_of_ids() {
        let ids = |sort, limit| -> Vec<_> {
            let mut list = example();
            list.reverse();
            let list = sorted(list, &wish(sort, limit));
            list.iter()
                .map(|connection| connection["id"].as_u64().unwrap())
                .collect()
        };
        assert_eq!(ids(Order::Id, None), [17, 18]);
        assert_eq!(ids(Order::Age, None), [18, 17]);
        assert_eq!(ids(Order::Rate, None), [17, 18]);
        assert_eq!(ids(Order::Idle, Some(1)), [18]);
        assert_eq!(ids(Order::Retransmits, Some(1)), [17]);
    }
}
