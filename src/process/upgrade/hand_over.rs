//! The critical part: all workers stand still, everything is sent, and the new process is told to go;
//! then this one leaves.
//!
//! Connections wait meanwhile, so nothing is done here that could be done before. Until the new process
//! has said `Serving`, every error leads back; after it, none does.

use std::net::Shutdown;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError::Timeout;
use crossbeam_channel::{Sender, after, bounded, never, select, unbounded};
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::super::signals::Asked;
use super::super::start::Running;
use super::Asker;
use super::child::{Fault, MESSAGE_TIMEOUT, Peer, Prepared, hear, last_words};
use crate::admin::request::{Done, Refusal, Successor};
use crate::clock::Now;
use crate::handover::dialogue::{self, Complete, Go, Serving, Took};
use crate::handover::{self, FrameError, Message};
use crate::units::counted;
use crate::worker::{Command, Order, Still};

/// A worker stands still at the end of a turn.
const STILL_TIMEOUT: Duration = Duration::from_secs(5);
/// What each connection adds to the time that all of them may take: ten times what it takes.
const PER_CONNECTION: Duration = Duration::from_micros(100);

/// It serves, or at least nobody else does.
#[derive(Debug)]
pub(super) struct Handed {
    peer: Peer,
    connections: u64,
    /// It was killed because it said so too late: why.
    doubt: Option<Fault>,
}

/// How this process ends once another one has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Leave {
    /// The other one serves.
    InOrder,
    /// The other one has ended: nobody serves.
    InVain,
}

impl Running {
    /// Hands everything over; on an error all goes on as before, and the new process has ended.
    pub(super) fn hand_over(&mut self, prepared: Prepared) -> Result<Handed, Refusal> {
        if let Some(admin) = &self.threads.admin {
            admin.pause();
        }
        let Prepared { outlet, mut peer } = prepared;
        let orders = match self.stand_still() {
            Ok(orders) => orders,
            Err(text) => return Err(self.go_on(peer, Fault::OfWorker(text), Vec::new())),
        };
        // Each worker has just made a turn. The watchdog is not looked after before this is over.
        self.supervision.feed();
        match self.send_all(outlet, &mut peer, &orders) {
            Ok(connections) => self.await_serving(peer, connections, orders),
            Err(fault) => Err(self.go_on(peer, fault, orders)),
        }
    }

    /// The new process holds everything, and stands still until it has said that it serves: where it
    /// comes to its end before, nothing has happened, and all goes on here.
    fn await_serving(
        &mut self,
        mut peer: Peer,
        connections: u64,
        orders: Vec<Sender<Order>>,
    ) -> Result<Handed, Refusal> {
        let patience = Patience::begin(MESSAGE_TIMEOUT);
        let (mut serving, mut doubt) = (self.hear::<Serving>(&mut peer, patience), None);
        if let Err(fault) = serving {
            peer.stop();
            // What it has said up to its end can still be heard.
            serving = hear::<Serving>(&mut peer.inlet);
            if serving.is_err() {
                return Err(self.go_on(peer, fault, orders));
            }
            doubt = Some(fault);
        }
        self.upgrade.leave(orders);
        if let Ok(serving) = serving {
            note_program(&mut peer, serving);
        }
        if doubt.is_none() {
            // Not before there is no way back: a service manager that was told listens to the new process
            // alone, and starts everything anew should that end.
            self.tell_main_pid(peer.newcomer.number());
        }
        Ok(Handed {
            peer,
            connections,
            doubt,
        })
    }

    /// All goes on here. Not before the new process is dead: should it have heard `Go` all the same, two
    /// would serve the same connections.
    fn go_on(&mut self, peer: Peer, fault: Fault, orders: Vec<Sender<Order>>) -> Refusal {
        let text = fault.in_words(&peer.end());
        // Workers take this as an order to go on.
        drop(orders);
        if let Some(admin) = &self.threads.admin {
            admin.resume();
        }
        Refusal::Unavailable(text)
    }

    /// Has all workers stand still, for as long as the senders live.
    fn stand_still(&self) -> Result<Vec<Sender<Order>>, &'static str> {
        let workers = self.threads.outboxes.len();
        let (reached, all_reached) = bounded(workers);
        let mut senders = Vec::new();
        for outbox in &self.threads.outboxes {
            let (sender, orders) = unbounded();
            let reached = reached.clone();
            let still = Command::Still(Still { reached, orders });
            outbox.send(still).map_err(|_| "a worker has ended")?;
            senders.push(sender);
        }
        drop(reached);
        let deadline = after(STILL_TIMEOUT.min(self.supervision.unfed_max()));
        for _ in 0..workers {
            select! {
                recv(all_reached) -> one => one.map_err(|_| "a worker has ended")?,
                recv(deadline) -> _ => return Err("a worker takes long to stand still"),
            }
        }
        Ok(senders)
    }

    /// Sends everything, and `Go`; how many connections there were.
    fn send_all(
        &mut self,
        mut outlet: handover::Sender,
        peer: &mut Peer,
        orders: &[Sender<Order>],
    ) -> Result<u64, Fault> {
        let most = MESSAGE_TIMEOUT + PER_CONNECTION * self.threads.ledger.process_connections();
        let patience = Patience::begin(most);
        let fed = outlet.set_timeout(MESSAGE_TIMEOUT.min(self.supervision.unfed_max()));
        fed.map_err(Fault::of_this_process)?;
        let said = dialogue::send_large(&mut outlet, &self.counts());
        said.map_err(|error| last_words(&mut peer.inlet, error))?;
        let mut connections = 0;
        for worker in orders {
            let (back, sent) = self.send_out(outlet, peer, worker, patience)?;
            (outlet, connections) = (back, connections + sent);
        }
        let said = outlet.send(&Complete { connections }, &[]);
        said.map_err(|error| last_words(&mut peer.inlet, error))?;
        let took: Took = self.hear(peer, patience)?;
        if took.connections != connections {
            let (taken, sent) = (took.connections, connections);
            return Err(Fault::Miscount { taken, sent });
        }
        outlet.send(&Go {}, &[]).map_err(Fault::Exchange)?;
        Ok(connections)
    }

    /// Has a worker send everything out.
    fn send_out(
        &mut self,
        outlet: handover::Sender,
        peer: &mut Peer,
        worker: &Sender<Order>,
        patience: Patience,
    ) -> Result<(handover::Sender, u64), Fault> {
        let (reply, sent) = bounded(1);
        // One that has ended drops the reply as well.
        worker.send(Order::SendOut(outlet, reply)).unwrap_or(());
        let mut outcome = sent.recv_timeout(self.supervision.unfed_max().min(patience.left()));
        while outcome.as_ref().err() == Some(&Timeout) && !patience.is_over() {
            self.supervision.feed();
            outcome = sent.recv_timeout(self.supervision.unfed_max().min(patience.left()));
        }
        let Ok((outlet, sent)) = outcome else {
            // It stops where it is, and then finds that it may go on.
            peer.link.shutdown(Shutdown::Both).unwrap_or(());
            return Err(Fault::Exchange(FrameError::TimedOut(patience.most)));
        };
        match sent {
            Ok(sent) => Ok((outlet, sent as u64)),
            Err(error) => Err(last_words(&mut peer.inlet, error)),
        }
    }

    /// The next message, which must be this one. The watchdog is fed while it is awaited.
    fn hear<M: Message>(&mut self, peer: &mut Peer, patience: Patience) -> Result<M, Fault> {
        let unfed_max = self.supervision.unfed_max();
        while !peer.comes_within(unfed_max.min(patience.left()))? {
            if patience.is_over() {
                return Err(Fault::Exchange(FrameError::TimedOut(patience.most)));
            }
            self.supervision.feed();
        }
        let waits = peer.inlet.set_timeout(patience.left());
        waits.map_err(Fault::of_this_process)?;
        hear(&mut peer.inlet)
    }

    /// Tells everyone, and passes on what was meant for whoever serves.
    pub(super) fn see_in(&mut self, handed: Handed, asker: Asker) -> Leave {
        let Handed {
            peer,
            connections,
            doubt,
        } = handed;
        let pid = peer.newcomer.number();
        if let Some(doubt) = doubt {
            let text = doubt.in_words(&peer.end());
            let text = format!("process {pid} took over and came to its end: {text}");
            log::error!("upgrade: {text}; nobody serves");
            asker.answer(Err(Refusal::Unavailable(text)));
            return Leave::InVain;
        }
        // It waits for this, and for nothing that is done below.
        peer.link.shutdown(Shutdown::Both).unwrap_or(());
        let count = counted(connections, "connection");
        let version = peer.version.clone();
        // No event: it is the first one that the other process tells, and each has a number of its own.
        log::info!("upgraded to {version} (process {pid}), which has {count} now");
        asker.answer(Ok(Done::Upgraded(Successor {
            pid,
            version,
            connections,
        })));
        self.pass_signals_on(&peer);
        Leave::InOrder
    }

    /// Ends what others could still wait for, and leaves the rest as it is: whatever is ended in order
    /// would be taken from the other process. The process is to end at once.
    pub(in crate::process) fn leave(&mut self) {
        self.upgrade.let_all_go();
        self.tell_askers();
        if let Some(admin) = self.threads.admin.take() {
            admin.let_go();
        }
        // Programs of checks would go on without anybody who waits for them.
        if let Some(prober) = self.threads.prober.take() {
            prober.stop();
        }
        if self.threads.recorder.as_ref().is_some_and(|it| !it.flush()) {
            log::warn!("access log: the last lines were not written in time");
        }
        self.tell_losses();
        self.tell_again();
        log::info!("stopped: {}", self.summary());
    }

    /// Whoever has asked for something in the last moment still waits for an answer.
    fn tell_askers(&mut self) {
        let requests = std::mem::replace(&mut self.inbox.requests, never());
        for request in self.put_off.drain(..).chain(requests.try_iter()) {
            let text = "another process has just taken over: ask again".to_owned();
            (request.reply)(Err(Refusal::Unavailable(text)));
        }
    }

    /// What came in the last moment is for whoever serves.
    fn pass_signals_on(&mut self, peer: &Peer) {
        let came = self.inbox.asked.try_iter();
        for asked in self.postponed.drain(..).chain(came) {
            let signal = match asked {
                Asked::Stop => SIGTERM,
                Asked::HangUp => SIGHUP,
                // That has just been done.
                Asked::Upgrade => continue,
            };
            if let Err(error) = peer.newcomer.send(signal) {
                log::warn!("upgrade: a signal was not passed on: {error}");
            }
        }
    }
}

/// How long connections may stand still before the new process has them all, however it spreads what it
/// is late with over them.
#[derive(Clone, Copy, Debug)]
struct Patience {
    most: Duration,
    until: Now,
}

impl Patience {
    fn begin(most: Duration) -> Self {
        let until = Now::read() + most;
        Self { most, until }
    }

    fn is_over(self) -> bool {
        Now::read() >= self.until
    }

    /// Never nothing, which would be for ever.
    fn left(self) -> Duration {
        let left = self.until.since(Now::read());
        left.max(Duration::from_millis(1))
    }
}

fn note_program(peer: &mut Peer, serving: Serving) {
    if !serving.program.is_empty() {
        peer.version = serving.program;
    }
}
