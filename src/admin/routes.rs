//! Which path is answered by what. Here stand the short ones; pools and servers, connections, reload
//! and streams have files of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::Value;

use super::desk::Desk;
use super::exhibit::Exhibit;
use super::extract::Wish;
use super::fault::Fault;
use super::{
    connections, dashboard, metrics, pools, readiness, reload, reply, status, stream, upgrade,
};
use crate::clock::Now;

/// What handlers see of the desk.
pub(super) type AtDesk = State<Arc<Desk>>;

/// All paths.
pub(super) fn router(desk: &Arc<Desk>) -> Router {
    // HEAD comes with GET; what a path does not know is answered 405 with those that it does.
    let server = get(pools::server)
        .patch(pools::change_server)
        .delete(pools::remove_server);
    Router::new()
        .route("/", get(|| async { reply::page(dashboard::page()) }))
        .route(
            "/healthz",
            get(|| async { reply::text(StatusCode::OK, "ok\n".into()) }),
        )
        .route("/readyz", get(readiness::ready))
        .route("/metrics", get(scrape))
        .route("/api/v1/status", get(show_status))
        .route(
            "/api/v1/pools/{pool}",
            get(pools::pool).patch(pools::change_pool),
        )
        .route("/api/v1/pools/{pool}/servers", post(pools::add_server))
        .route("/api/v1/pools/{pool}/servers/{server}", server)
        .route("/api/v1/connections", get(connections::list))
        .route("/api/v1/connections/{id}", delete(connections::kill))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/plan", post(reload::plan))
        .route("/api/v1/confirm", post(reload::confirm))
        .route("/api/v1/leave", post(readiness::leave))
        .route("/api/v1/join", post(readiness::join))
        .route("/api/v1/upgrade", post(upgrade::upgrade))
        .route("/api/v1/events", get(stream::events))
        .route("/api/v1/demo", get(show_demo).patch(change_demo))
        .fallback(|uri: Uri| async move { Fault::not_found(format!("there is no {}", uri.path())) })
        .with_state(Arc::clone(desk))
}

/// Whether a request may take longer than most: it reads a file, or awaits a health check or a process.
pub(super) fn is_slow(uri: &Uri, method: &Method) -> bool {
    *method == Method::POST
        && ["/reload", "/plan", "/servers", "/upgrade"]
            .iter()
            .any(|end| uri.path().ends_with(end))
}

async fn scrape(State(desk): AtDesk) -> Result<Response, Fault> {
    let text = metrics::text(&desk.shared, desk.started, Now::read());
    let text = text.map_err(|error| {
        Fault::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("metrics: {error}"),
        )
    })?;
    Ok(reply::metrics(metrics::FORMAT, text))
}

async fn show_status(State(desk): AtDesk) -> Response {
    let roster = desk.roster();
    let status = status::status(&desk.shared, &roster, Now::read());
    reply::json(StatusCode::OK, &status)
}

async fn show_demo(State(desk): AtDesk) -> Result<Response, Fault> {
    Ok(reply::json(StatusCode::OK, &exhibit(&desk)?.show()))
}

async fn change_demo(State(desk): AtDesk, Wish(wish): Wish<Value>) -> Result<Response, Fault> {
    let exhibit = exhibit(&desk)?;
    // Its fields are its own; so are its errors.
    exhibit.change(&wish)?;
    Ok(reply::json(StatusCode::OK, &exhibit.show()))
}

fn exhibit(desk: &Desk) -> Result<&dyn Exhibit, Fault> {
    let exhibit = desk.shared.exhibit.as_deref();
    exhibit.ok_or_else(|| Fault::not_found("no demonstration runs here"))
}
