//! Applying a config file, or saying what it would change. The process does both; a path comes only
//! from whoever may use the unix socket, as reading any file that evenkeel may read is more than
//! changing its servers.

use std::path::{Path, PathBuf};

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::access::Transport;
use super::extract::OptionalWish;
use super::fault::Fault;
use super::reply;
use super::request::{Ask, Done, Plan};
use super::routes::AtDesk;
use super::status::seconds;
use super::wishes::{PlanWish, ReloadWish};

#[derive(Serialize)]
struct ShownChange<'a> {
    text: &'a str,
    connections: u64,
}

/// The same for what would change and for what has changed.
#[derive(Serialize)]
struct ShownPlan<'a> {
    changes: Vec<ShownChange<'a>>,
    restart: &'a [String],
    warnings: &'a [String],
    confirm_seconds: Option<f64>,
}

pub(super) async fn reload(
    State(desk): AtDesk,
    Extension(transport): Extension<Transport>,
    OptionalWish(wish): OptionalWish<ReloadWish>,
) -> Result<Response, Fault> {
    check_file(wish.file.as_deref(), transport)?;
    let reload = wish.reload()?;
    let confirm = reload.confirm.map(seconds);
    show(&desk.ask(Ask::Reload(reload)).await?, confirm)
}

pub(super) async fn plan(
    State(desk): AtDesk,
    Extension(transport): Extension<Transport>,
    OptionalWish(wish): OptionalWish<PlanWish>,
) -> Result<Response, Fault> {
    check_file(wish.file.as_deref(), transport)?;
    let file: Option<PathBuf> = wish.file;
    show(&desk.ask(Ask::Plan(file)).await?, None)
}

pub(super) async fn confirm(State(desk): AtDesk) -> Result<Response, Fault> {
    desk.ask(Ask::Confirm).await?;
    Ok(reply::json(StatusCode::OK, &json!({})))
}

fn check_file(file: Option<&Path>, transport: Transport) -> Result<(), Fault> {
    match (file, transport) {
        (Some(_), Transport::Tcp(_)) => Err(Fault::new(
            StatusCode::FORBIDDEN,
            "file: only over the admin socket; leave it out for the file that evenkeel runs with",
        )),
        // The process need not run in the folder of whoever asks.
        (Some(file), Transport::Unix) if !file.is_absolute() => Err(Fault::invalid(
            "file: write the whole path, beginning with /",
        )),
        _ => Ok(()),
    }
}

fn show(done: &Done, confirm_seconds: Option<f64>) -> Result<Response, Fault> {
    // Where the process has nothing to say, nothing has changed.
    let nothing = Plan::default();
    let plan = match done {
        Done::Plan(plan) => plan,
        _ => &nothing,
    };
    let changes = plan.changes.iter().map(|change| ShownChange {
        text: &change.text,
        connections: change.connections,
    });
    let shown = ShownPlan {
        changes: changes.collect(),
        restart: &plan.restart,
        warnings: &plan.warnings,
        confirm_seconds,
    };
    Ok(reply::json(StatusCode::OK, &shown))
}
