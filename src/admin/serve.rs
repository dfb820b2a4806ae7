//! The admin thread: a tokio runtime of its own, and a loop for each transport that accepts only
//! while there is a place, so that a crowd waits in the kernel and costs nothing.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use crossbeam_channel::Sender;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time::{sleep, timeout};

use super::access::Transport;
use super::desk::Desk;
use super::{routes, visit};

/// After an accept that failed: what was missing (descriptors, memory) does not come at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) unix: Option<StdUnixListener>,
    pub(super) http: Option<StdTcpListener>,
}

/// One that the thread looks at. Whoever else holds it can hand its socket on; it is closed with the
/// last of them.
#[derive(Debug)]
pub(super) enum Door {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Those that it looks at.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    pub(super) unix: Option<Arc<Door>>,
    pub(super) http: Option<Arc<Door>>,
}

/// What the thread is told while it runs; it answers when that is so.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept nobody: who comes waits in the kernel's queue.
    Pause(Sender<()>),
    /// Accept again.
    Resume(Sender<()>),
}

/// How long the thread may still take to its end, once it is told to end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending(pub(super) Option<Duration>);

impl Ending {
    /// Whether it is.
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

/// The thread, and what it looks at.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) thread: JoinHandle<()>,
    pub(super) doors: Doors,
    pub(super) orders: UnboundedSender<Order>,
}

/// Starts the thread; it ends once the desk's `stopping` says so.
///
/// # Errors
/// EMFILE, ENOMEM: a runtime and a thread are made.
pub(super) fn spawn(listeners: Listeners, desk: Desk) -> io::Result<Served> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let entered = runtime.enter();
    let unix = listeners.unix.map(UnixListener::from_std).transpose()?;
    let http = listeners.http.map(TcpListener::from_std).transpose()?;
    drop(entered);
    let doors = Doors {
        unix: unix.map(Door::Unix).map(Arc::new),
        http: http.map(Door::Tcp).map(Arc::new),
    };
    let (orders, receiver) = unbounded_channel();
    let serve = serve(doors.clone(), Arc::new(desk), receiver);
    let thread = thread::Builder::new().name("admin".into());
    Ok(Served {
        thread: thread.spawn(move || runtime.block_on(serve))?,
        doors,
        orders,
    })
}

async fn serve(doors: Doors, desk: Arc<Desk>, mut orders: UnboundedReceiver<Order>) {
    let router = routes::router(&desk);
    let entrance = |door| Entrance::new(door, &desk, &router);
    let doors = [doors.unix, doors.http].into_iter().flatten();
    let mut entrances: Vec<_> = doors.map(entrance).collect();
    entrances.iter_mut().for_each(Entrance::open);
    let goodbye = loop {
        tokio::select! {
            goodbye = until_stopping(&desk) => break goodbye,
            Some(order) = orders.recv() => follow(order, &mut entrances).await,
        }
    };
    let mut crowds = Vec::new();
    for mut entrance in entrances {
        entrance.close().await;
        crowds.push(entrance.places);
    }
    let all = u32::try_from(desk.bounds.connections).unwrap_or(u32::MAX);
    let leave = async {
        for crowd in &crowds {
            // Nobody closes these semaphores.
            drop(crowd.acquire_many(all).await);
        }
    };
    // Whoever is not done by then is cut off with the runtime.
    timeout(goodbye, leave).await.unwrap_or(());
}

/// How long the end may take, once it has come.
async fn until_stopping(desk: &Desk) -> Duration {
    let mut stopping = desk.stopping.clone();
    let ending = stopping.wait_for(Ending::is_set).await;
    // An error says that nobody is left who could tell: that is the end, too.
    let ending = ending.map_or(None, |ending| ending.0);
    ending.unwrap_or(desk.bounds.goodbye)
}

async fn follow(order: Order, entrances: &mut [Entrance]) {
    let done = match order {
        Order::Pause(done) => {
            for entrance in entrances {
                entrance.close().await;
            }
            done
        }
        Order::Resume(done) => {
            entrances.iter_mut().for_each(Entrance::open);
            done
        }
    };
    // Whoever gave the order waits for this, unless it has given up.
    done.send(()).unwrap_or(());
}

/// A door, and those who have come in by it.
struct Entrance {
    door: Arc<Door>,
    places: Arc<Semaphore>,
    host: Arc<Host>,
    /// While it is open.
    accepting: Option<task::JoinHandle<()>>,
}

impl Entrance {
    /// It is closed.
    fn new(door: Arc<Door>, desk: &Arc<Desk>, router: &Router) -> Self {
        Self {
            door,
            places: Arc::new(Semaphore::new(desk.bounds.connections)),
            host: Arc::new(Host {
                desk: Arc::clone(desk),
                router: router.clone(),
            }),
            accepting: None,
        }
    }

    fn open(&mut self) {
        let accepting = || {
            let (door, places) = (Arc::clone(&self.door), Arc::clone(&self.places));
            tokio::spawn(keep_accepting(door, places, Arc::clone(&self.host)))
        };
        self.accepting.get_or_insert_with(accepting);
    }

    /// Nobody is lost: a client is either accepted and received, or still in the kernel's queue.
    async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            drop(accepting.await);
        }
    }
}

async fn keep_accepting(door: Arc<Door>, places: Arc<Semaphore>, host: Arc<Host>) {
    let mut is_short = false;
    loop {
        // First the place, then the client: one that nobody has accepted costs no descriptor, and the
        // kernel's backlog keeps those that wait in order.
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes this semaphore");
        let outcome = accept_one(&door, place, &host).await;
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
