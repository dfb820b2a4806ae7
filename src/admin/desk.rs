//! What all routes have at hand: what the threads share, the rules, and the way to ask the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use super::Shared;
use super::access::Rules;
use super::bounds::Bounds;
use super::fault::Fault;
use super::fleet::watch::Watch;
use super::request::{Ask, Done, Request};
use super::serve::Ending;
use super::status;
use crate::clock::{self, Now};
use crate::roster::Roster;

/// A status that is no older is good enough for streams: one is made for all of them.
const FRESH: Duration = Duration::from_millis(500);

/// One of an admin thread.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) shared: Shared,
    pub(super) rules: Rules,
    pub(super) bounds: Bounds,
    /// Others that are shown beside this one.
    pub(super) nodes: Watch,
    /// Places for event streams.
    pub(super) streams: Arc<Semaphore>,
    /// Says when the thread is to end.
    pub(super) stopping: watch::Receiver<Ending>,
    /// The wall clock at the start of the process, as well as it is known.
    pub(super) started: SystemTime,
    asks: Arc<Semaphore>,
    /// The last status that a stream was given, and when it was made.
    recent: Mutex<(Now, Bytes)>,
}

impl Desk {
    pub(super) fn new(
        shared: Shared,
        rules: Rules,
        bounds: Bounds,
        nodes: Watch,
        stopping: watch::Receiver<Ending>,
    ) -> Self {
        let uptime = Now::read().since(shared.started);
        Self {
            started: clock::wall()
                .checked_sub(uptime)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            shared,
            rules,
            bounds,
            nodes,
            streams: Arc::new(Semaphore::new(bounds.streams)),
            stopping,
            asks: Arc::new(Semaphore::new(bounds.asks)),
            recent: Mutex::default(),
        }
    }

    /// Everything by name, as of now.
    pub(super) fn roster(&self) -> Arc<Roster> {
        self.shared.board.read()
    }

    /// Asks the process and waits for its answer. Whoever asks has a deadline.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Done, Fault> {
        let ending = || Fault::unavailable("the process is ending");
        let asks = Arc::clone(&self.asks);
        let place = asks.acquire_owned().await.map_err(|_| ending())?;
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |answer| {
            // Held by the question and not by whoever asks: one that has gone away leaves its
            // question in the queue.
            drop(place);
            // Whoever asked has gone away.
            sender.send(answer).unwrap_or(());
        });
        let request = Request { ask, reply };
        self.shared.requests.send(request).map_err(|_| ending())?;
        Ok(receiver.await.map_err(|_| ending())??)
    }

    /// The status as JSON, for streams: half a second old at most.
    pub(super) fn recent_status(&self, now: Now) -> Bytes {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.1.is_empty() || now.since(recent.0) >= FRESH {
            let status = status::text(&self.shared, now);
            *recent = (now, Bytes::from(status));
        }
        recent.1.clone()
    }
}
