//! The upgrade: another program is started and takes everything over, and this process ends; or all
//! goes on as before. This is the old process's side; `handover::dialogue` draws the whole exchange.
//!
//! ```text
//! state        what happens                                   goes over into
//! Idle         nothing                                        Preparing    somebody asks
//! Preparing    a thread has started the program (`child`),    HandingOver  it is ready
//!              which makes itself ready with what it is told  Idle         anything else, also a stop
//!              (`snapshot`); all is served as ever
//! HandingOver  the main thread alone: all workers stand       Gone         it serves
//!              still, everything is sent (`hand_over`,        Idle         anything else
//!              `counts`)
//! Gone         this process closes what it has, and leaves
//! ```
//! What holds in every state:
//! - Until the new process has said that it serves, this one can go on at once, for what it sends are
//!   duplicates, and nothing happens to them there. From `Go` on it must be sure that the other one is
//!   dead; after `Serving` nothing may be done to any socket but to close it, which nobody notices.
//!   It is done soon: the peers of a connection that ends there hear of that only then.
//! - Workers stand still exactly as long as their [`Order`]s can be sent. What is dropped by an error
//!   lets them go on, so in `Gone` it is kept to the end.
//! - What was described to the new process does not change before it has taken over: changes are
//!   refused, and answers of name servers wait.
//! - The child and our end of its socket are one thread's at a time, and whoever gives up ends the child
//!   and waits for it. The main thread can cut the exchange short by shutting the socket down.
//! - Nothing here waits for ever: each message has its time, each step that the main thread waits for,
//!   and the standstill as a whole. The watchdog is fed meanwhile.

mod child;
mod counts;
mod hand_over;
mod newcomer;
mod snapshot;

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, never};

pub(super) use self::child::Progress;
use self::child::Task;
pub(super) use self::hand_over::Leave;
use super::start::Running;
use crate::admin::request::{Answer, Ask, Refusal};
use crate::clock::Now;
use crate::roster::Stage;
use crate::telemetry::events::Kind;
use crate::worker::Order;

/// Who is told what has become of it; a signal has nobody.
pub(super) struct Asker(Option<Reply>);

type Reply = Box<dyn FnOnce(Answer) + Send>;

impl Asker {
    /// Somebody who waits.
    pub(super) fn new(reply: Reply) -> Self {
        Self(Some(reply))
    }

    /// The log has the answer.
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    fn answer(self, answer: Answer) {
        if let Some(reply) = self.0 {
            reply(answer);
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.0.is_some() { "asker" } else { "nobody" };
        f.write_str(who)
    }
}

/// How far it has come; the table above has the transitions.
#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Preparing {
        asker: Asker,
        /// To be shut down where it is to come to nothing.
        link: UnixStream,
    },
    HandingOver,
    /// With what keeps the workers where they are.
    Gone(Vec<Sender<Order>>),
}

/// The upgrade, where there is one, and what one needs to know.
#[derive(Debug)]
pub(super) struct Upgrade {
    state: State,
    /// The program of this process. Found at the start: once the file is replaced, nobody can tell.
    program: Option<PathBuf>,
    /// When the first process of this line began to serve.
    pub(super) started: Now,
    /// Processes of this line that have handed over before this one.
    pub(super) before: u64,
    /// In a demonstration everything around the process would stay behind.
    is_exhibited: bool,
}

impl Upgrade {
    /// Nobody has asked, nor handed over to this process.
    pub(super) fn new(is_exhibited: bool, started: Now) -> Self {
        Self {
            state: State::Idle,
            program: std::env::current_exe().ok(),
            started,
            before: 0,
            is_exhibited,
        }
    }

    /// Whether one is under way.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    fn prepare(&mut self, asker: Asker, link: UnixStream) {
        debug_assert!(matches!(self.state, State::Idle));
        self.state = State::Preparing { asker, link };
    }

    /// The preparation is over, in whichever way; who has asked.
    fn prepared(&mut self) -> Asker {
        match std::mem::replace(&mut self.state, State::HandingOver) {
            State::Preparing { asker, .. } => asker,
            State::Idle | State::HandingOver | State::Gone(_) => {
                debug_assert!(false, "only what was begun is ready");
                Asker::nobody()
            }
        }
    }

    fn give_up(&mut self) {
        debug_assert!(matches!(self.state, State::HandingOver));
        self.state = State::Idle;
    }

    fn leave(&mut self, orders: Vec<Sender<Order>>) {
        debug_assert!(matches!(self.state, State::HandingOver));
        self.state = State::Gone(orders);
    }

    /// The new process goes on: what this one still has open is in its way.
    fn let_all_go(&self) {
        if let State::Gone(orders) = &self.state {
            // A worker that has ended has nothing open.
            let tell = |worker: &Sender<Order>| worker.send(Order::LetGo).unwrap_or(());
            orders.iter().for_each(tell);
        }
    }
}

/// How long a stop waits for the end of a child that was making itself ready.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

impl Running {
    /// Whether `ask` has to be refused because of an upgrade.
    pub(super) fn is_refused_meanwhile(&self, ask: &Ask) -> bool {
        let changes_nothing = matches!(ask, Ask::Connections(_) | Ask::Kill(_) | Ask::Plan(_));
        self.upgrade.is_under_way() && !changes_nothing
    }

    /// Begins an upgrade to `program`, or to the program that runs; `asker` hears of its end.
    pub(super) fn begin_upgrade(&mut self, program: Option<&Path>, asker: Asker) {
        if self.upgrade.is_under_way() {
            let text = "an upgrade is under way".to_owned();
            return asker.answer(Err(Refusal::Unavailable(text)));
        }
        match self.start_child(program) {
            Ok(link) => {
                self.tell_upgrading();
                self.upgrade.prepare(asker, link);
            }
            Err(refusal) => self.tell_not_upgraded(refusal, asker),
        }
    }

    /// Whether this is a moment for it.
    fn check_upgrade(&self) -> Result<(), Refusal> {
        let text = if self.stage != Stage::Serving {
            "evenkeel does not serve yet, or is stopping"
        } else if self.pending.is_some() {
            "a reload awaits its confirmation: `evenkeel confirm` keeps it"
        } else if self.upgrade.is_exhibited {
            "a demonstration cannot be upgraded: start it anew"
        } else if std::process::id() == 1 {
            "evenkeel is process 1: the container would end with it; put an init in front, such as \
             `docker run --init`"
        } else {
            return Ok(());
        };
        Err(Refusal::Conflict(text.to_owned()))
    }

    /// Has a thread start the program and make it ready; where to cut that short.
    fn start_child(&mut self, program: Option<&Path>) -> Result<UnixStream, Refusal> {
        self.check_upgrade()?;
        let own = self.upgrade.program.as_deref();
        let program = child::program(program, own).map_err(Refusal::Invalid)?;
        let arguments = child::arguments(&self.loaded).map_err(Refusal::Conflict)?;
        let failed =
            |error: std::io::Error| Refusal::Unavailable(format!("cannot upgrade: {error}"));
        let parts = self.parts().map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let link = ours.try_clone().map_err(failed)?;
        let (progress, receiver) = bounded(1);
        let task = Task {
            program,
            arguments,
            link: ours,
            parts,
            slowest_answer: self.serving.slowest_answer(),
        };
        task.begin(theirs.into(), progress).map_err(failed)?;
        self.inbox.progress = receiver;
        Ok(link)
    }

    /// The new program is ready, or will never be. Where it serves now, this process has nothing left to
    /// do but to leave.
    pub(super) fn take_progress(&mut self, progress: Progress) -> Option<Leave> {
        self.inbox.progress = never();
        let asker = self.upgrade.prepared();
        let outcome = progress.map_err(Refusal::Invalid);
        match outcome.and_then(|prepared| self.hand_over(prepared)) {
            Ok(handed) => Some(self.see_in(handed, asker)),
            Err(refusal) => {
                self.upgrade.give_up();
                self.tell_not_upgraded(refusal, asker);
                None
            }
        }
    }

    /// The process is to end: an upgrade that is being prepared comes to nothing.
    pub(super) fn abort_upgrade(&mut self) {
        let State::Preparing { link, .. } = &self.upgrade.state else {
            return;
        };
        // Wakes the thread, wherever it waits; that it is shut down already is as good.
        link.shutdown(Shutdown::Both).unwrap_or(());
        if let Ok(Ok(prepared)) = self.inbox.progress.recv_timeout(ABORT_TIMEOUT) {
            prepared.end();
        }
        self.inbox.progress = never();
        let asker = self.upgrade.prepared();
        self.upgrade.give_up();
        let refusal = Refusal::Unavailable("evenkeel is stopping".to_owned());
        self.tell_not_upgraded(refusal, asker);
    }

    fn tell_not_upgraded(&mut self, refusal: Refusal, asker: Asker) {
        log::error!("upgrade failed, all stays as it was: {refusal}");
        // Whoever may look is not told what a file says: a mistake quotes its lines.
        let text = "upgrade failed, all stays as it was: the log says why";
        if self.stage == Stage::Serving {
            self.tell_serving(text);
        }
        self.public.events.add(Kind::UpgradeFailed, text);
        self.public.upgrades_failed.fetch_add(1, Ordering::Relaxed);
        asker.answer(Err(refusal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preparing() -> (Upgrade, UnixStream) {
        let mut upgrade = Upgrade::new(false, Now::default());
        assert!(!upgrade.is_under_way());
        let (ours, theirs) = UnixStream::pair().unwrap();
        upgrade.prepare(Asker::nobody(), ours);
        assert!(upgrade.is_under_way());
        (upgrade, theirs)
    }

    #[test]
    fn what_comes_to_nothing_can_be_begun_again() {
        let (mut upgrade, _theirs) = preparing();
        upgrade.prepared();
        assert!(upgrade.is_under_way());
        upgrade.give_up();
        assert!(!upgrade.is_under_way());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        upgrade.prepare(Asker::nobody(), ours);
        assert!(upgrade.is_under_way());
    }

    #[test]
    fn who_is_gone_keeps_the_workers_where_they_are() {
        let (mut upgrade, _theirs) = preparing();
        upgrade.prepared();
        let (order, orders) = bounded::<Order>(1);
        upgrade.leave(vec![order]);
        assert!(upgrade.is_under_way());
        let is_kept = |error| error == crossbeam_channel::TryRecvError::Empty;
        assert!(orders.try_recv().is_err_and(is_kept));
    }

    #[test]
    fn the_asker_hears_of_the_end() {
        let (sender, answers) = bounded(1);
        let asker = Asker::new(Box::new(move |answer| sender.send(answer).unwrap()));
        asker.answer(Err(Refusal::Conflict("no".to_owned())));
        assert!(answers.recv().unwrap().is_err());
    }
}
