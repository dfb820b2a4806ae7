//! Living connections: listed by the workers on demand, named from the roster, killed by number.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::desk::Desk;
use super::extract::{Asked, Named};
use super::fault::Fault;
use super::reply;
use super::request::{Ask, Done, Filter};
use super::routes::AtDesk;
use super::status::{Bytes, milliseconds, seconds};
use super::wishes::duration;
use crate::clock::Now;
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};
use crate::roster::Roster;
use crate::telemetry::connection::{BothSides, ConnectionStatus, Path};

/// Longer, and whoever asks looks twice.
const SAMPLE_MAX: Duration = Duration::from_secs(10);

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListWish {
    pool: Option<String>,
    server: Option<String>,
    sample: Option<String>,
    limit: Option<usize>,
}

/// Over the sample where one was asked for, else over the connection's age.
#[derive(Serialize)]
struct BytesPerSecond {
    upstream: f64,
    downstream: f64,
}

/// Null where there is no such socket, or it has failed.
#[derive(Serialize)]
struct Sides<T> {
    client: Option<T>,
    server: Option<T>,
}

/// A connection. Names are null where no server was picked yet, or where listener or server have
/// gone since the workers were asked; the pool of one that waits for a server is known.
#[derive(Serialize)]
struct Shown<'a> {
    id: u64,
    listener: Option<&'a str>,
    client: String,
    pool: Option<&'a str>,
    server: Option<&'a str>,
    server_address: Option<String>,
    local: Option<String>,
    phase: &'static str,
    age_seconds: f64,
    idle_seconds: f64,
    bytes: Bytes,
    bytes_per_second: BytesPerSecond,
    limited_by: &'static str,
    rtt_ms: Sides<f64>,
    retransmits: Sides<u32>,
    unsent_bytes: Sides<u32>,
}

pub(super) async fn list(
    State(desk): AtDesk,
    Asked(wish): Asked<ListWish>,
) -> Result<Response, Fault> {
    let sample = wish.sample.as_deref().map(|text| duration("sample", text));
    let sample = sample.transpose()?.filter(|sample| !sample.is_zero());
    if sample.is_some_and(|sample| sample > SAMPLE_MAX) {
        return Err(Fault::invalid("sample: write at most 10s"));
    }
    let filter = Filter {
        pool: wish.pool,
        server: wish.server,
    };
    // Two looks at living counters tell what flows now; one tells the past.
    let mut before = Sample::default();
    if let Some(sample) = sample {
        before = Sample::of(&ask(&desk, &filter).await?, Now::read());
        sleep(sample).await;
    }
    // Only the second look is shown: whoever ended meanwhile is no living connection.
    let mut connections = ask(&desk, &filter).await?;
    let now = Now::read();
    connections.sort_unstable_by_key(|connection| connection.id);
    connections.truncate(wish.limit.unwrap_or(usize::MAX));
    let roster = desk.roster();
    let names = Names::of(&roster);
    let shown: Vec<_> = connections
        .iter()
        .map(|connection| shown(connection, &names, &before, now))
        .collect();
    Ok(reply::json(StatusCode::OK, &shown))
}

async fn ask(desk: &Desk, filter: &Filter) -> Result<Vec<ConnectionStatus>, Fault> {
    match desk.ask(Ask::Connections(filter.clone())).await? {
        Done::Connections(connections) => Ok(connections),
        _ => Ok(Vec::new()),
    }
}

pub(super) async fn kill(State(desk): AtDesk, Named(id): Named<u64>) -> Result<Response, Fault> {
    let id = ConnectionId(id);
    match desk.ask(Ask::Kill(vec![id])).await? {
        Done::Killed(killed) if killed.contains(&id) => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(Fault::not_found(format!("there is no connection {id}"))),
    }
}

/// The byte counts of an earlier look.
#[derive(Default)]
struct Sample {
    at: Now,
    bytes: HashMap<ConnectionId, (u64, u64)>,
}

impl Sample {
    fn of(connections: &[ConnectionStatus], at: Now) -> Self {
        let counts = |c: &ConnectionStatus| (c.id, (c.upstream_bytes, c.downstream_bytes));
        Self {
            at,
            bytes: connections.iter().map(counts).collect(),
        }
    }

    /// Over the time since that look; over the age where the connection was not there then.
    fn rates(&self, connection: &ConnectionStatus, now: Now) -> BytesPerSecond {
        let seen = self.bytes.get(&connection.id);
        let time = seen.map_or(connection.age, |_| now.since(self.at));
        let (upstream, downstream) = seen.copied().unwrap_or_default();
        // What is younger than a moment has no rate to speak of.
        let seconds = time.as_secs_f64().max(0.001);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        BytesPerSecond {
            upstream: rate(connection.upstream_bytes, upstream),
            downstream: rate(connection.downstream_bytes, downstream),
        }
    }
}

/// Names by id; those of listeners and servers that have left and have connections, too.
struct Names<'a> {
    listeners: HashMap<ListenerId, &'a str>,
    pools: HashMap<PoolId, &'a str>,
    servers: HashMap<ServerId, (&'a str, &'a str, String)>,
}

impl<'a> Names<'a> {
    fn of(roster: &'a Roster) -> Self {
        let listed = roster
            .pools
            .iter()
            .flat_map(|pool| pool.servers.iter().map(|server| (&pool.name, server)));
        let leaving = roster.leaving.iter().map(|gone| (&gone.pool, &gone.server));
        let listeners = roster.listeners.iter().map(|l| (l.id, &*l.name));
        let left = roster.left_listeners.iter();
        let left = left.map(|(id, name)| (*id, &**name));
        Self {
            listeners: listeners.chain(left).collect(),
            pools: roster.pools.iter().map(|p| (p.id, &*p.name)).collect(),
            servers: listed
                .chain(leaving)
                .map(|(pool, server)| {
                    let names = (&**pool, &*server.name, server.address.to_string());
                    (server.id, names)
                })
                .collect(),
        }
    }
}

fn shown<'a>(
    connection: &ConnectionStatus,
    names: &'a Names<'_>,
    before: &Sample,
    now: Now,
) -> Shown<'a> {
    let server = connection.server.and_then(|id| names.servers.get(&id));
    let own_pool = connection.pool.and_then(|id| names.pools.get(&id).copied());
    Shown {
        id: connection.id.0,
        listener: names.listeners.get(&connection.listener).copied(),
        client: connection.client.to_string(),
        pool: server.map(|(pool, _, _)| *pool).or(own_pool),
        server: server.map(|(_, server, _)| *server),
        server_address: server.map(|(_, _, address)| address.clone()),
        local: connection.local.map(|address| address.to_string()),
        phase: connection.stage.word(),
        age_seconds: seconds(connection.age),
        idle_seconds: seconds(connection.idle),
        bytes: Bytes {
            upstream: connection.upstream_bytes,
            downstream: connection.downstream_bytes,
        },
        bytes_per_second: before.rates(connection, now),
        limited_by: connection.limited_by.word(),
        rtt_ms: sides(connection.paths, |path| milliseconds(path.round_trip)),
        retransmits: sides(connection.paths, |path| path.retransmits),
        unsent_bytes: sides(connection.paths, |path| path.unsent_bytes),
    }
}

fn sides<T>(paths: BothSides<Option<Path>>, part: impl Fn(Path) -> T) -> Sides<T> {
    Sides {
        client: paths.client.map(&part),
        server: paths.server.map(&part),
    }
}
