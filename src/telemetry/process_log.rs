//! The process log: env_logger's formatting, written to standard error by a thread of its own.
//!
//! Nobody who logs waits for whoever reads standard error: a full pipe there costs lines, which are
//! counted and reported, and no traffic.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::LevelFilter;

/// Lines that may wait for standard error.
const QUEUE_LINES: usize = 1024;
/// How long the end of the process waits for a reader of standard error.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// Answered once all earlier lines are written.
    Flush(Sender<()>),
}

/// Keeps the log going; flush it before the process ends.
#[derive(Debug)]
pub struct ProcessLog(Sender<Message>);

/// Sends the lines of `log` to standard error from `level` up.
///
/// # Errors
/// Where no thread can be started, or a logger is set already.
pub fn start(level: LevelFilter) -> io::Result<ProcessLog> {
    let (sender, receiver) = bounded(QUEUE_LINES);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&receiver))?;
    env_logger::Builder::new()
        .filter_level(LevelFilter::Trace)
        .format_target(false)
        .target(env_logger::Target::Pipe(Box::new(Lines(sender.clone()))))
        .try_init()
        .map_err(io::Error::other)?;
    set_level(level);
    Ok(ProcessLog(sender))
}

/// The least urgent level that is shown from now on. The filter of `log` itself decides, before a
/// line is even formatted, so that it can change while the process runs.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

impl ProcessLog {
    /// Waits until what was logged is written, but not for ever.
    pub fn flush(&self) {
        let (done, written) = bounded(1);
        if self
            .0
            .send_timeout(Message::Flush(done), FLUSH_TIMEOUT)
            .is_ok()
        {
            // Nobody reads standard error: the process ends all the same.
            written.recv_timeout(FLUSH_TIMEOUT).unwrap_or(());
        }
    }
}

/// What env_logger writes to: one call a line.
struct Lines(Sender<Message>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(receiver: &Receiver<Message>) {
    loop {
        match receiver.recv_timeout(FLUSH_TIMEOUT) {
            Ok(Message::Line(line)) => write_line(&line),
            Ok(Message::Flush(done)) => done.send(()).unwrap_or(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let dropped = DROPPED.swap(0, Relaxed);
        if dropped > 0 {
            write_line(format!("process log: {dropped} lines dropped\n").as_bytes());
        }
    }
}

fn write_line(line: &[u8]) {
    // A closed standard error leaves nowhere to say so.
    io::stderr().write_all(line).unwrap_or(());
}
