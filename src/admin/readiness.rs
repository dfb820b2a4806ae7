//! Whether this node should get traffic, and the operator's word on it. Engines that move an address
//! between nodes look here: keepalived, a routing daemon, a name server.
//!
//! Nothing here stops a connection: whoever still comes while the engines take notice is served.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::desk::Desk;
use super::fault::Fault;
use super::reply;
use super::request::Ask;
use super::routes::AtDesk;
use crate::roster::Roster;

/// What a change is answered with.
#[derive(Debug, Serialize)]
struct Shown {
    ready: bool,
    left: bool,
    not_ready: Vec<String>,
}

/// Why this node should get no traffic, a reason each; empty where it should.
pub(super) fn reasons(_shared: &Shared, roster: &Roster) -> Vec<String> {
    roster.reasons_against_traffic()
}

pub(super) async fn ready(State(desk): AtDesk) -> Response {
    let reasons = reasons(&desk.shared, &desk.roster());
    match reasons.is_empty() {
        true => reply::text(StatusCode::OK, "ready\n".into()),
        false => {
            let text = reasons.join("\n") + "\n";
            reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

pub(super) async fn leave(State(desk): AtDesk) -> Result<Response, Fault> {
    set(&desk, true).await
}

pub(super) async fn join(State(desk): AtDesk) -> Result<Response, Fault> {
    set(&desk, false).await
}

async fn set(desk: &Desk, has_left: bool) -> Result<Response, Fault> {
    desk.ask(Ask::Leave(has_left)).await?;
    let roster = desk.roster();
    let not_ready = reasons(&desk.shared, &roster);
    let shown = Shown {
        ready: not_ready.is_empty(),
        left: roster.has_left,
        not_ready,
    };
    Ok(reply::json(StatusCode::OK, &shown))
}
