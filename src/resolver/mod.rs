//! The resolver: one thread that asks for the addresses of names, and looks at files with servers in
//! them, again and again; what an answer changes is reported. It alone waits for name servers and
//! disks: whoever uses the servers hears of them by a message.
//!
//! ```text
//! Step -> one task a question -> names -> client (DNS), records (pure)
//!                 |          \-> file  -> config::read_servers (pure)
//!                 +--> Report, where it differs from the one before
//! ```
//! The second room with tokio in it: the DNS client is made for it. It knows no pool and no worker.

mod client;
mod file;
mod names;
mod records;
mod words;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use self::names::Names;
use crate::clock::Now;
use crate::config::{Found, Question};
use crate::telemetry::resolutions::Resolutions;

#[cfg(test)]
mod tests;

/// Descriptors that may be open at once: sockets of lookups, the runtime's own, files.
pub const DESCRIPTORS_MAX: usize = 4 * names::LOOKUPS_MAX + FILES_MAX + 8;

/// Files that are looked at in the same moment; more wait. A disk that hangs holds one up for each
/// of its files.
const FILES_MAX: usize = 16;

/// Rounds are up to this share of the interval early, so that questions that began together do not
/// stay together.
const JITTER: f64 = 0.1;

/// What changes about the questions.
#[derive(Clone, Debug)]
pub enum Step {
    /// Asks at once and then that long after each answer; one that is asked already goes on with
    /// the new interval. Files are looked at each second, whatever the interval.
    Watch {
        /// What is asked.
        question: Arc<Question>,
        /// How long an answer holds.
        every: Duration,
    },
    /// Asks it no more.
    Forget(Arc<Question>),
}

/// The first answer to a question, or one that differs from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// To what.
    pub question: Arc<Question>,
    /// At least one server, each address once; names' sorted, files' in their order.
    pub answer: Result<Vec<Found>, Failure>,
}

/// Why there is no answer. What was found before is still the best that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// In one line, without anything from inside a file.
    pub reason: String,
    /// Every mistake of a file, for the log alone.
    pub mistakes: Option<String>,
}

impl Failure {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            mistakes: None,
        }
    }
}

/// The thread that asks. It ends with [`Resolver::stop`] or with the process.
#[derive(Debug)]
pub struct Resolver {
    thread: JoinHandle<()>,
    orders: mpsc::UnboundedSender<Vec<Step>>,
}

/// Starts the thread, without a question. `deliver` is called on it and must not block.
///
/// # Errors
/// No runtime or no thread could be made.
pub fn spawn(
    deliver: impl FnMut(Report) + Send + 'static,
    resolutions: Arc<Resolutions>,
) -> io::Result<Resolver> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(FILES_MAX)
        .thread_name("resolver-file")
        .build()?;
    let (orders, taken) = mpsc::unbounded_channel();
    let body = move || run(runtime, taken, deliver, resolutions);
    let thread = thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(body)?;
    Ok(Resolver { thread, orders })
}

impl Resolver {
    /// Takes the steps in their order, after those of earlier calls; does not wait for it.
    pub fn change(&self, steps: Vec<Step>) {
        // It is gone only after a panic, which has ended the process.
        self.orders.send(steps).unwrap_or(());
    }

    /// Ends the thread and waits for it; questions under way come to nothing.
    pub fn stop(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            log::error!("the resolver had panicked");
        }
    }
}

fn run(
    runtime: Runtime,
    orders: mpsc::UnboundedReceiver<Vec<Step>>,
    deliver: impl FnMut(Report),
    resolutions: Arc<Resolutions>,
) {
    let (reports, reported) = mpsc::unbounded_channel();
    let desk = Desk {
        names: Arc::new(Names::default()),
        reports,
        resolutions,
        watched: HashMap::new(),
    };
    runtime.block_on(desk.serve(orders, reported, deliver));
    // A file on a disk that hangs would else keep the process from ending.
    runtime.shutdown_background();
}

/// What is asked, and by which task.
#[derive(Debug)]
struct Desk {
    names: Arc<Names>,
    reports: mpsc::UnboundedSender<Report>,
    resolutions: Arc<Resolutions>,
    watched: HashMap<Arc<Question>, Watched>,
}

#[derive(Debug)]
struct Watched {
    every: watch::Sender<Duration>,
    task: AbortHandle,
}

impl Desk {
    async fn serve(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Vec<Step>>,
        mut reported: mpsc::UnboundedReceiver<Report>,
        mut deliver: impl FnMut(Report),
    ) {
        loop {
            tokio::select! {
                steps = orders.recv() => match steps {
                    Some(steps) => steps.into_iter().for_each(|step| self.take(step)),
                    None => return,
                },
                Some(report) = reported.recv() => {
                    if self.watched.contains_key(&report.question) {
                        deliver(report);
                    }
                }
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Watch { question, every } => match self.watched.get(&question) {
                Some(watched) => {
                    watched.every.send_replace(every);
                }
                None => {
                    let watched = self.begin(&question, every);
                    self.watched.insert(question, watched);
                }
            },
            Step::Forget(question) => {
                if let Some(watched) = self.watched.remove(&question) {
                    watched.task.abort();
                }
            }
        }
    }

    fn begin(&self, question: &Arc<Question>, every: Duration) -> Watched {
        let (every, interval) = watch::channel(every);
        let out = Out {
            question: Arc::clone(question),
            reports: self.reports.clone(),
            resolutions: Arc::clone(&self.resolutions),
            last: None,
        };
        let task = match &**question {
            Question::File(path) => tokio::spawn(file::watch(path.clone(), out)),
            Question::Host { .. } | Question::Service(_) => {
                tokio::spawn(ask_again_and_again(Arc::clone(&self.names), interval, out))
            }
        };
        let task = task.abort_handle();
        Watched { every, task }
    }
}

/// Where a task's answers go.
#[derive(Debug)]
struct Out {
    question: Arc<Question>,
    reports: mpsc::UnboundedSender<Report>,
    resolutions: Arc<Resolutions>,
    /// What was reported last.
    last: Option<Result<Vec<Found>, Failure>>,
}

impl Out {
    /// Counts the answer, and reports it unless it was the last one, too.
    fn tell(&mut self, answer: Result<Vec<Found>, Failure>) {
        self.resolutions.record(answer.is_ok());
        if self.last.as_ref() == Some(&answer) {
            return;
        }
        self.last = Some(answer.clone());
        let question = Arc::clone(&self.question);
        // Nobody listens any more: the thread is about to end.
        self.reports.send(Report { question, answer }).unwrap_or(());
    }
}

async fn ask_again_and_again(
    names: Arc<Names>,
    mut every: watch::Receiver<Duration>,
    mut out: Out,
) {
    let mut memory = records::Memory::default();
    loop {
        let answer = names.ask(&out.question, &mut memory).await;
        out.tell(answer);
        rest(&mut every).await;
    }
}

/// Waits for the interval to pass, also where it becomes another one meanwhile.
async fn rest(every: &mut watch::Receiver<Duration>) {
    let (since, early) = (Now::read(), 1.0 - JITTER * fastrand::f64());
    loop {
        let interval = every.borrow_and_update().mul_f64(early);
        let left = interval.saturating_sub(Now::read().since(since));
        tokio::select! {
            () = sleep(left) => return,
            // The sender goes with the task's place at the desk, and the task with it.
            changed = every.changed() => if changed.is_err() { return },
        }
    }
}
