//! `GET /api/v1/nodes`: this node and those of `admin.nodes` side by side, for the page.
//!
//! Lists and not maps, because their order is that of the table, in every language.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::comparison::{Comparison, Row, Seen, Told};
use crate::admin::reply;
use crate::admin::routes::AtDesk;
use crate::clock::Now;

/// All of it; empty where no nodes are configured.
#[derive(Debug, Default, Serialize)]
struct Shown<'a> {
    nodes: Vec<ShownNode<'a>>,
    pools: Vec<ShownPool<'a>>,
    differences: &'a [String],
}

/// A node, or why it has told nothing.
#[derive(Debug, Serialize)]
struct ShownNode<'a> {
    name: &'a str,
    is_this: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    told: Option<ShownStatus<'a>>,
}

#[derive(Debug, Serialize)]
struct ShownStatus<'a> {
    version: &'a str,
    ready: bool,
    standing: &'a str,
    not_ready: &'a [String],
    uptime_seconds: f64,
    workers: Option<u64>,
    connections: Connections,
}

#[derive(Debug, Serialize)]
struct Connections {
    active: u64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct ShownPool<'a> {
    name: &'a str,
    servers: Vec<ShownServer<'a>>,
}

/// `nodes` are in the order of the list of nodes.
#[derive(Debug, Serialize)]
struct ShownServer<'a> {
    name: &'a str,
    address: &'a str,
    nodes: Vec<Option<ShownSeen<'a>>>,
}

/// A server as one node has it; `odd` where most of the nodes have it in another state.
#[derive(Debug, Serialize)]
struct ShownSeen<'a> {
    state: &'a str,
    active: Option<u64>,
    weight: Option<u64>,
    odd: bool,
}

pub(in crate::admin) async fn nodes(State(desk): AtDesk) -> Response {
    if desk.nodes.is_empty() {
        return reply::json(StatusCode::OK, &Shown::default());
    }
    let own = desk.recent_status(Now::read());
    let own = serde_json::from_slice(&own).unwrap_or_default();
    let told = desk.nodes.look(&own).await;
    let comparison = Comparison::of(&told);
    reply::json(StatusCode::OK, &shown(&told, &comparison))
}

fn shown<'a>(told: &'a [Told], comparison: &'a Comparison<'a>) -> Shown<'a> {
    let pools = comparison.pools.iter().map(|pool| ShownPool {
        name: pool.name,
        servers: pool.rows.iter().map(shown_server).collect(),
    });
    Shown {
        nodes: told.iter().enumerate().map(shown_node).collect(),
        pools: pools.collect(),
        differences: &comparison.differences,
    }
}

fn shown_node((at, node): (usize, &Told)) -> ShownNode<'_> {
    let told = node.view.as_ref().ok().map(|view| ShownStatus {
        version: &view.version,
        ready: view.is_ready,
        standing: view.standing(),
        not_ready: &view.reasons,
        uptime_seconds: view.uptime_seconds,
        workers: view.workers,
        connections: Connections {
            active: view.active,
            total: view.total,
        },
    });
    ShownNode {
        name: &node.name,
        is_this: at == 0,
        error: node.view.as_ref().err().map(String::as_str),
        told,
    }
}

fn shown_server<'a>(row: &'a Row<'a>) -> ShownServer<'a> {
    let seen = |seen: &Seen<'a>| {
        let server = seen.server();
        Some(ShownSeen {
            state: match seen {
                Seen::Silent => return None,
                Seen::Missing => "missing",
                Seen::There(server) => &server.state,
            },
            active: server.and_then(|server| server.active),
            weight: server.and_then(|server| server.weight),
            odd: row.is_odd(seen),
        })
    };
    ShownServer {
        name: row.name,
        address: row.address,
        nodes: row.seen.iter().map(seen).collect(),
    }
}
