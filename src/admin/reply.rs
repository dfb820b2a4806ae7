//! Answers: their content types and the headers that all of them carry.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::fault::Fault;

/// The page has everything in it: it loads nothing and talks to nobody but us.
const PAGE_POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
    style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The same for what is no page: nothing in it is ever to be run or shown as one.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Headers of every answer.
const ALWAYS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// A JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("maps have text keys and numbers are finite");
    with_type(status, "application/json", body)
}

/// Lines for people and probes.
pub(super) fn text(status: StatusCode, body: String) -> Response {
    with_type(status, "text/plain; charset=utf-8", body)
}

/// Metrics, in the encoder's format.
pub(super) fn metrics(format: &'static str, body: String) -> Response {
    with_type(StatusCode::OK, format, body)
}

/// An event stream.
pub(super) fn stream(body: Body) -> Response {
    with_type(StatusCode::OK, "text/event-stream", body)
}

/// The page.
pub(super) fn page(body: &'static str) -> Response {
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", body);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What every answer goes through last.
pub(super) fn finish(mut response: Response) -> Response {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = explain_methods(&response);
    }
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(DATA_POLICY));
    response
}

/// The router says which methods there are, but has no body for it.
fn explain_methods(response: &Response) -> Response {
    let allowed = response.headers().get(ALLOW).cloned();
    let methods = allowed.as_ref().and_then(|value| value.to_str().ok());
    let text = format!("use {}", methods.unwrap_or("another method"));
    let mut response = Fault::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    if let Some(allowed) = allowed {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
