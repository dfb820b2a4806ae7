//! The admin thread: a tokio runtime of its own, and a loop for each transport that accepts only
//! while there is a place, so that a crowd waits in the kernel and costs nothing.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::access::Transport;
use super::desk::Desk;
use super::{routes, visit};

/// After an accept that failed: what was missing (descriptors, memory) does not come at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listening sockets.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) unix: Option<StdUnixListener>,
    pub(super) http: Option<StdTcpListener>,
}

/// Starts the thread; it ends once `stopping` says so.
///
/// # Errors
/// EMFILE, ENOMEM: a runtime and a thread are made.
pub(super) fn spawn(doors: Doors, desk: Desk) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let entered = runtime.enter();
    let unix = doors.unix.map(UnixListener::from_std).transpose()?;
    let http = doors.http.map(TcpListener::from_std).transpose()?;
    drop(entered);
    let serve = serve([unix.map(Door::Unix), http.map(Door::Tcp)], Arc::new(desk));
    thread::Builder::new()
        .name("admin".into())
        .spawn(move || runtime.block_on(serve))
}

enum Door {
    Unix(UnixListener),
    Tcp(TcpListener),
}

async fn serve(doors: [Option<Door>; 2], desk: Arc<Desk>) {
    let router = routes::router(&desk);
    let mut crowds = Vec::new();
    for door in doors.into_iter().flatten() {
        let places = Arc::new(Semaphore::new(desk.bounds.connections));
        crowds.push(Arc::clone(&places));
        let host = Host {
            desk: Arc::clone(&desk),
            router: router.clone(),
        };
        tokio::spawn(keep_accepting(door, places, host));
    }
    until_stopping(desk.stopping.clone()).await;
    let all = u32::try_from(desk.bounds.connections).unwrap_or(u32::MAX);
    let leave = async {
        for crowd in &crowds {
            // Nobody closes these semaphores.
            drop(crowd.acquire_many(all).await);
        }
    };
    // Whoever is not done by then is cut off with the runtime.
    timeout(desk.bounds.goodbye, leave).await.unwrap_or(());
}

async fn until_stopping(mut stopping: watch::Receiver<bool>) {
    // An error says that nobody is left who could tell: that is the end, too.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

async fn keep_accepting(door: Door, places: Arc<Semaphore>, host: Host) {
    let mut is_short = false;
    loop {
        let accept = async {
            // First the place, then the client: one that nobody has accepted costs no descriptor,
            // and the kernel's backlog keeps those that wait in order.
            let place = Arc::clone(&places).acquire_owned().await;
            let place = place.expect("nobody closes this semaphore");
            accept_one(&door, place, &host).await
        };
        let outcome = tokio::select! {
            outcome = accept => outcome,
            () = until_stopping(host.desk.stopping.clone()) => return,
        };
        if let Err(error) = &outcome {
            // Once for each shortage, however long it lasts.
            if !is_short {
                log::warn!("admin: cannot accept: {error}");
            }
            sleep(ACCEPT_PAUSE).await;
        }
        is_short = outcome.is_err();
    }
}

async fn accept_one(door: &Door, place: OwnedSemaphorePermit, host: &Host) -> io::Result<()> {
    match door {
        Door::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            host.receive(stream, Transport::Unix, place);
        }
        Door::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // A client that has gone already has no local address to ask for.
            let local = stream.local_addr()?;
            host.receive(stream, Transport::Tcp(local), place);
        }
    }
    Ok(())
}

/// Receives visits; each gets a task of its own and keeps its place until it ends.
struct Host {
    desk: Arc<Desk>,
    router: Router,
}

impl Host {
    fn receive<S>(&self, stream: S, transport: Transport, place: OwnedSemaphorePermit)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (desk, router) = (Arc::clone(&self.desk), self.router.clone());
        tokio::spawn(async move {
            visit::host(stream, transport, desk, router).await;
            drop(place);
        });
    }
}
