//! Handing everything over to a new process. The process does it; a program comes only from whoever may
//! use the unix socket, as running any file with evenkeel's rights is more than changing its servers.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::access::Transport;
use super::extract::OptionalWish;
use super::fault::Fault;
use super::reply;
use super::request::{Ask, Done};
use super::routes::AtDesk;
use super::wishes::UpgradeWish;

pub(super) async fn upgrade(
    State(desk): AtDesk,
    Extension(transport): Extension<Transport>,
    OptionalWish(wish): OptionalWish<UpgradeWish>,
) -> Result<Response, Fault> {
    check_binary(&wish, transport)?;
    let done = desk.ask(Ask::Upgrade(wish.binary)).await?;
    let Done::Upgraded(successor) = done else {
        return Err(Fault::unavailable("the process did not say who serves now"));
    };
    let shown = json!({
        "pid": successor.pid,
        "version": successor.version,
        "connections": successor.connections,
    });
    Ok(reply::json(StatusCode::OK, &shown))
}

fn check_binary(wish: &UpgradeWish, transport: Transport) -> Result<(), Fault> {
    match (&wish.binary, transport) {
        (Some(_), Transport::Tcp(_)) => Err(Fault::new(
            StatusCode::FORBIDDEN,
            "binary: only over the admin socket; leave it out for the program that evenkeel was \
             started as",
        )),
        // The process need not run in the folder of whoever asks.
        (Some(binary), Transport::Unix) if !binary.is_absolute() => Err(Fault::invalid(
            "binary: write the whole path, beginning with /",
        )),
        _ => Ok(()),
    }
}
