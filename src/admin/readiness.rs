//! Whether this node should get traffic, and the operator's word on it. Engines that move an address
//! between nodes look here: keepalived, a routing daemon, a name server.
//!
//! Nothing here stops a connection: whoever still comes while the engines take notice is served.

use std::time::Duration;

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
use crate::clock::Now;
use crate::roster::{Roster, Stage};

/// What a change is answered with.
#[derive(Debug, Serialize)]
struct Shown {
    ready: bool,
    left: bool,
    not_ready: Vec<String>,
}

/// The main thread has told nothing for so long. It waits for nothing longer than a third of it; and it
/// relays nothing, so that there is time to be sure.
const MAIN_HANGS: Duration = Duration::from_secs(30);

/// Why this node should get no traffic, a reason each; empty where it should.
pub(super) fn reasons(shared: &Shared, roster: &Roster, now: Now) -> Vec<String> {
    let mut reasons = roster.reasons_against_traffic();
    if roster.stage != Stage::Serving {
        return reasons;
    }
    let turned = Now::from_nanoseconds(shared.main_turned.value());
    if turned != Now::default() && now.since(turned) > MAIN_HANGS {
        reasons.push("the main thread hangs".to_owned());
    }
    let workers = shared.counters.iter().enumerate();
    let short = workers
        .filter(|(_, counters)| counters.short_until.value() > now.as_nanoseconds())
        .map(|(index, _)| format!("worker {index} is out of descriptors or memory"));
    reasons.extend(short);
    reasons
}

pub(super) async fn ready(State(desk): AtDesk) -> Response {
    let reasons = reasons(&desk.shared, &desk.roster(), Now::read());
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
    let not_ready = reasons(&desk.shared, &roster, Now::read());
    let shown = Shown {
        ready: not_ready.is_empty(),
        left: roster.has_left,
        not_ready,
    };
    Ok(reply::json(StatusCode::OK, &shown))
}
