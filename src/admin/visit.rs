//! One connection to the admin side: requests one after the other, each within its bounds.
//!
//! A visit is always in one [`Phase`], and each phase has a time limit that begins anew with it, so
//! that no peer can hold a place for ever: not by a slow head, not by reading nothing. hyper's own
//! limit for heads would also count the time between two requests, hence it is not used.
//!
//! The order is that of trust: the rules of access see the head before anything else happens, the
//! body is read within its bounds, and only then does a route see either.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::access::{Head, Transport};
use super::bounds::Bounds;
use super::desk::Desk;
use super::fault::Fault;
use super::phase::{Observed, Phase, Phases, Tracked};
use super::reply;
use super::routes;
use super::serve::Ending;
use super::stream::Endless;

/// hyper reads ahead no further.
const BUFFER_BYTES: usize = 64 << 10;
/// So many times the limit is read of a body before the refusal: a peer that is still writing when
/// the connection closes would see a reset instead of the answer.
const REFUSED_BODY_FACTOR: usize = 16;

/// Serves one connection to its end.
pub(super) async fn host<S>(stream: S, transport: Transport, desk: Arc<Desk>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (phases, mut phase) = watch::channel(Phase::Head);
    let phases = Arc::new(phases);
    let bounds = desk.bounds;
    let mut stopping = desk.stopping.clone();
    let observed = Observed {
        stream,
        phases: Arc::clone(&phases),
    };
    let visit = Arc::new(Visit {
        transport,
        desk,
        phases,
        router: TowerToHyperService::new(router),
    });
    let service = service_fn(move |request| {
        let visit = Arc::clone(&visit);
        async move { Ok::<_, Infallible>(visit.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        // A client that has said all, as `nc -N` does, is still answered.
        .half_close(true)
        .max_header_size(bounds.head_bytes)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(observed), service);
    let mut connection = pin!(connection);
    let mut is_leaving = false;
    loop {
        let limit = phase.borrow_and_update().limit(&bounds);
        tokio::select! {
            // How a peer ends its connection is its own business.
            _ = connection.as_mut() => return,
            // The senders live as long as the connection.
            _ = phase.changed() => {}
            () = expire(limit) => return,
            _ = stopping.wait_for(Ending::is_set), if !is_leaving => {
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn expire(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => pending().await,
    }
}

/// What each request of one connection needs.
struct Visit {
    transport: Transport,
    desk: Arc<Desk>,
    phases: Phases,
    router: TowerToHyperService<Router>,
}

impl Visit {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        self.phases.send_replace(Phase::Answering);
        let response = self.respond(request).await;
        let response = reply::finish(response.unwrap_or_else(IntoResponse::into_response));
        let is_endless = response.extensions().get::<Endless>().is_some();
        // Before the body exists: its end, which may come at once, is the next phase.
        self.phases.send_replace(match is_endless {
            true => Phase::Streaming,
            false => Phase::Sending,
        });
        let phases = Arc::clone(&self.phases);
        response.map(|body| Body::new(Tracked { body, phases }))
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response, Fault> {
        let (mut parts, body) = request.into_parts();
        let head = Head {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
        };
        let refusal = self.desk.rules.check(self.transport, head).err();
        let is_asking_first = parts.headers.contains_key(EXPECT);
        if let Some(refusal) = refusal {
            if !is_asking_first {
                // What is on its way is read all the same: see REFUSED_BODY_FACTOR.
                drop(read_body(body, false, &self.desk.bounds).await);
            }
            return Err(refusal);
        }
        let body = read_body(body, is_asking_first, &self.desk.bounds).await?;
        parts.extensions.insert(self.transport);
        parts.extensions.insert(Arc::clone(&self.phases));
        // A route that gives up leaves its question with the process, which answers nobody.
        let limit = match routes::is_slow(&parts.uri, &parts.method) {
            true => self.desk.bounds.slow_request,
            false => self.desk.bounds.request,
        };
        let request = Request::from_parts(parts, Body::from(body));
        let Ok(response) = timeout(limit, self.router.call(request)).await else {
            let text = "not done in time; it may still be done: look at the status";
            return Err(Fault::unavailable(text));
        };
        Ok(response.unwrap_or_else(|never| match never {}))
    }
}

/// All of a body that is within its bounds.
async fn read_body(body: Incoming, is_asking_first: bool, bounds: &Bounds) -> Result<Bytes, Fault> {
    let most = bounds.body_bytes;
    let too_large = || {
        let text = format!("the body is over {} KiB", most >> 10);
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let is_hopeless = announced > most.saturating_mul(REFUSED_BODY_FACTOR);
    if is_hopeless || (is_asking_first && announced > most) {
        return Err(too_large());
    }
    match timeout(bounds.body, collect(body, most)).await {
        Ok(collected) => collected?.ok_or_else(too_large),
        Err(_) => Err(Fault::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

/// `None` where there is more than `most`.
async fn collect(mut body: Incoming, most: usize) -> Result<Option<Bytes>, Fault> {
    let mut bytes = Vec::new();
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::invalid("the body is cut off or malformed"))?;
        let Ok(data) = frame.into_data() else {
            // Trailers say nothing that a route would ask for.
            continue;
        };
        count += data.len();
        if count <= most {
            bytes.extend_from_slice(&data);
        } else if count > most.saturating_mul(REFUSED_BODY_FACTOR) {
            break;
        }
    }
    Ok((count <= most).then(|| bytes.into()))
}
