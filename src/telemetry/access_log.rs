//! The access log: one line a connection, at its end.
//!
//! Workers put plain records into a bounded queue and never wait: where the writer is behind (a slow
//! disk, a pipe that nobody reads), records are dropped and counted. The writer's thread formats and
//! writes in batches; the names that it knows come and go with listeners and servers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;
use serde::Serialize;

use super::log_file::{self, LogFile};
use crate::address::Peer;
use crate::clock::Now;
use crate::config::{AccessLog, LogFormat};
use crate::end::End;
use crate::ids::{ConnectionId, ListenerId, PoolId, ServerId};

/// Records that may wait for the writer: about 1 MiB.
const QUEUE_RECORDS: usize = 8192;
/// How long the writer stays away after a batch: lines are that late at most.
const NAP: Duration = Duration::from_millis(10);
/// Records written at once.
const BATCH_RECORDS: usize = 256;
/// How long the writer stays away after it could not write.
const RETRY: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the writer.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of a connection that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The wall clock at the end.
    pub time: SystemTime,
    /// Which connection.
    pub id: ConnectionId,
    /// Where it came in.
    pub listener: ListenerId,
    /// Who it was.
    pub client: Peer,
    /// Where it was to go; `None` where it was turned away before that was known.
    pub pool: Option<PoolId>,
    /// The last one that was tried, `None` where none was. Its pool goes before `pool`.
    pub server: Option<ServerId>,
    /// Bytes delivered to the server.
    pub upstream_bytes: u64,
    /// Bytes delivered to the client.
    pub downstream_bytes: u64,
    /// From the pick of the server to its accepting; `None` where it never did.
    pub connect: Option<Duration>,
    /// From accept to end.
    pub duration: Duration,
    /// Why it ended.
    pub end: End,
}

/// Names by id, for the writer; clones share them. What is forgotten while its records still wait is
/// shown as unknown.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// With the pool that takes what no other rule does.
    listeners: HashMap<ListenerId, Named>,
    pools: HashMap<PoolId, Arc<str>>,
    servers: HashMap<ServerId, Named>,
}

/// A listener or a server.
#[derive(Debug)]
struct Named {
    name: Arc<str>,
    pool: Arc<str>,
}

impl Names {
    /// Makes a listener known, or its pool another one.
    pub fn add_listener(&self, id: ListenerId, name: Arc<str>, pool: Arc<str>) {
        self.lock().listeners.insert(id, Named { name, pool });
    }

    /// Makes a pool known.
    pub fn add_pool(&self, id: PoolId, name: Arc<str>) {
        self.lock().pools.insert(id, name);
    }

    /// Makes a server known.
    pub fn add_server(&self, id: ServerId, name: Arc<str>, pool: Arc<str>) {
        self.lock().servers.insert(id, Named { name, pool });
    }

    /// What a pool is called, as long as it is known.
    pub fn pool(&self, id: PoolId) -> Option<Arc<str>> {
        self.lock().pools.get(&id).cloned()
    }

    /// Nothing is shown of the listener any more: to be called after its last connection.
    pub fn forget_listener(&self, id: ListenerId) {
        self.lock().listeners.remove(&id);
    }

    /// Nothing is shown of the pool any more: to be called after its last connection.
    pub fn forget_pool(&self, id: PoolId) {
        self.lock().pools.remove(&id);
    }

    /// Nothing is shown of the server any more: to be called after its last connection.
    pub fn forget_server(&self, id: ServerId) {
        self.lock().servers.remove(&id);
    }

    /// The writer holds it while it formats a batch, less than a millisecond.
    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic ends the process, so nobody sees a poisoned lock outside tests.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer is given.
#[derive(Debug)]
enum Entry {
    Record(Record),
    /// Answered once all earlier ones are written.
    Flush(Sender<()>),
}

/// Where workers put records.
#[derive(Clone, Debug)]
pub struct Recorder(Sender<Entry>);

impl Recorder {
    /// Never waits; false where the record found no room and is lost.
    pub fn put(&self, record: Record) -> bool {
        self.0.try_send(Entry::Record(record)).is_ok()
    }

    /// Waits until what was put is written, but not for ever; false where the time ran out.
    pub fn flush(&self) -> bool {
        let (sender, done) = bounded(1);
        let asked = self.0.send_timeout(Entry::Flush(sender), FINISH_TIMEOUT);
        asked.is_ok() && done.recv_timeout(FINISH_TIMEOUT).is_ok()
    }
}

/// The writer's thread.
#[derive(Debug)]
pub struct Writer {
    /// Closed when the thread has written everything.
    finished: Receiver<()>,
}

impl Writer {
    /// Waits for the rest to be written once every recorder is dropped, but not for ever; false
    /// where the time ran out.
    pub fn finish(self) -> bool {
        use crossbeam_channel::RecvTimeoutError::Disconnected;
        self.finished.recv_timeout(FINISH_TIMEOUT) == Err(Disconnected)
    }
}

/// Starts the writer; `None` where the config says `off`.
///
/// # Errors
/// Where the file cannot be opened or no thread be started.
pub fn start(
    log: &AccessLog,
    format: LogFormat,
    names: Names,
) -> io::Result<Option<(Recorder, Writer)>> {
    let Some(file) = open(log)? else {
        return Ok(None);
    };
    let (sender, receiver) = bounded(QUEUE_RECORDS);
    let (finishing, finished) = bounded(0);
    let mut lines = Lines {
        file,
        format,
        names,
        buffer: Vec::new(),
        lost: 0,
    };
    thread::Builder::new()
        .name("access-log".into())
        .spawn(move || {
            lines.write_all(&receiver);
            drop(finishing);
        })?;
    Ok(Some((Recorder(sender), Writer { finished })))
}

/// Looks for what would stand in the way of [`start`], without making a file.
///
/// # Errors
/// As [`start`].
pub fn foresee(log: &AccessLog) -> io::Result<()> {
    match log {
        AccessLog::Off | AccessLog::Stdout | AccessLog::Stderr => Ok(()),
        AccessLog::File(path) => log_file::foresee(path),
    }
}

fn open(log: &AccessLog) -> io::Result<Option<LogFile>> {
    Ok(match log {
        AccessLog::Off => None,
        AccessLog::Stdout => Some(LogFile::stream(io::stdout())),
        AccessLog::Stderr => Some(LogFile::stream(io::stderr())),
        AccessLog::File(path) => Some(LogFile::open(path)?),
    })
}

/// What the writer's thread works with.
struct Lines {
    file: LogFile,
    format: LogFormat,
    names: Names,
    /// Lines of the batch at hand.
    buffer: Vec<u8>,
    /// Lines that could not be written since the last that could.
    lost: u64,
}

impl Lines {
    /// Waits for a record, writes all that are there, and looks again after a while: a worker that
    /// finds the writer waiting pays a futex call to wake it.
    fn write_all(&mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let mut flushes = Vec::new();
            let batch = std::iter::once(first).chain(entries.try_iter().take(BATCH_RECORDS - 1));
            let records = batch.filter_map(|entry| match entry {
                Entry::Record(record) => Some(record),
                Entry::Flush(done) => {
                    flushes.push(done);
                    None
                }
            });
            let count = self.format(records);
            let outcome = self.file.write(&self.buffer, Now::read());
            self.buffer.clear();
            let nap = self.tell(outcome, count);
            if flushes.is_empty() {
                thread::park_timeout(nap);
            }
            for done in flushes {
                // Whoever asked may have given up.
                done.send(()).unwrap_or(());
            }
        }
    }

    /// Adds a line for each record; answers how many. Nobody waits for a disk with the names locked.
    fn format(&mut self, records: impl Iterator<Item = Record>) -> usize {
        let names = self.names.lock();
        let mut count = 0;
        for record in records {
            let line = Line::new(&record, &names);
            add_line(&mut self.buffer, &line, self.format);
            count += 1;
        }
        count
    }

    /// Tells of the first failure in a row and of its end; answers how long to stay away.
    fn tell(&mut self, outcome: io::Result<()>, count: usize) -> Duration {
        match outcome {
            // More wait already.
            Ok(()) if self.lost == 0 && count == BATCH_RECORDS => Duration::ZERO,
            Ok(()) if self.lost == 0 => NAP,
            Ok(()) => {
                log::warn!("access log: written again; {} lines are lost", self.lost);
                self.lost = 0;
                NAP
            }
            Err(error) => {
                if self.lost == 0 {
                    log::error!("access log: {error}; lines are lost until it can be written");
                }
                self.lost += count as u64;
                RETRY
            }
        }
    }
}

/// A record as the log shows it, in the order of its fields.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: u64,
    listener: Option<&'a str>,
    client: String,
    server: Option<&'a str>,
    pool: Option<&'a str>,
    upstream_bytes: u64,
    downstream_bytes: u64,
    connect_ms: Option<f64>,
    duration_ms: f64,
    end: &'static str,
}

impl<'a> Line<'a> {
    fn new(record: &Record, names: &'a Table) -> Self {
        let listener = names.listeners.get(&record.listener);
        let server = record.server.and_then(|id| names.servers.get(&id));
        // The listener may lead to another pool by now: with a server, its own is the one.
        let pool = match (record.server, record.pool) {
            (Some(_), _) => server.map(|server| &*server.pool),
            (None, Some(pool)) => names.pools.get(&pool).map(|pool| &**pool),
            (None, None) => listener.map(|listener| &*listener.pool),
        };
        Self {
            time: wall_time(record.time),
            id: record.id.0,
            listener: listener.map(|listener| &*listener.name),
            client: record.client.to_string(),
            server: server.map(|server| &*server.name),
            pool,
            upstream_bytes: record.upstream_bytes,
            downstream_bytes: record.downstream_bytes,
            connect_ms: record.connect.map(milliseconds),
            duration_ms: milliseconds(record.duration),
            end: record.end.word(),
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
fn wall_time(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
}

/// With microseconds as decimals; more would be noise.
fn milliseconds(duration: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact up to 285 years")]
    let microseconds = duration.as_micros() as f64;
    microseconds / 1000.0
}

fn add_line(buffer: &mut Vec<u8>, line: &Line<'_>, format: LogFormat) {
    let outcome = match format {
        LogFormat::Json => serde_json::to_writer(&mut *buffer, line).map_err(io::Error::from),
        LogFormat::Text => add_text(buffer, line),
    };
    outcome.expect("writing to memory does not fail");
    buffer.push(b'\n');
}

fn add_text(buffer: &mut Vec<u8>, line: &Line<'_>) -> io::Result<()> {
    let or_dash = |name: Option<_>| name.unwrap_or("-");
    let listener = or_dash(line.listener);
    let (server, pool) = (or_dash(line.server), or_dash(line.pool));
    write!(buffer, "time={} id={}", line.time, line.id)?;
    write!(buffer, " listener={listener} client={}", line.client)?;
    write!(buffer, " server={server} pool={pool}")?;
    write!(buffer, " upstream_bytes={}", line.upstream_bytes)?;
    write!(buffer, " downstream_bytes={}", line.downstream_bytes)?;
    match line.connect_ms {
        Some(connect_ms) => write!(buffer, " connect_ms={connect_ms:.3}")?,
        None => write!(buffer, " connect_ms=-")?,
    }
    write!(
        buffer,
        " duration_ms={:.3} end={}",
        line.duration_ms, line.end
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let names = Names::default();
        names.add_listener(ListenerId::new(0), "web".into(), "front".into());
        names.add_server(ServerId::new(1), "b".into(), "pool".into());
        names
    }

    fn record() -> Record {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            id: ConnectionId(17),
            listener: ListenerId::new(0),
            client: Peer::Ip("127.0.0.1:51234".parse().unwrap()),
            pool: None,
            server: Some(ServerId::new(1)),
            upstream_bytes: 10,
            downstream_bytes: 20,
            connect: Some(Duration::from_micros(1500)),
            duration: Duration::from_millis(3200),
            end: End::ClientClosed,
        }
    }

    fn written(record: Record, format: LogFormat) -> String {
        written_with(&names(), record, format)
    }

    fn written_with(names: &Names, record: Record, format: LogFormat) -> String {
        let mut buffer = Vec::new();
        add_line(&mut buffer, &Line::new(&record, &names.lock()), format);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn a_line_of_text_has_every_field_in_order() {
        assert_eq!(
            written(record(), LogFormat::Text),
            "time=2023-11-14T22:13:20.123Z id=17 listener=web client=127.0.0.1:51234 server=b \
             pool=pool upstream_bytes=10 downstream_bytes=20 connect_ms=1.500 \
             duration_ms=3200.000 end=client_closed\n"
        );
    }

    #[test]
    fn what_is_unknown_is_a_dash_in_text_and_null_in_json() {
        let record = Record {
            server: None,
            connect: None,
            end: End::NoServer,
            ..record()
        };
        let text = written(record, LogFormat::Text);
        assert!(
            text.contains(" server=- ") && text.contains(" connect_ms=- "),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&written(record, LogFormat::Json)).unwrap();
        assert!(json["server"].is_null() && json["connect_ms"].is_null());
        assert_eq!(json["end"], "no_server");
        assert_eq!(json["id"], 17);
    }

    #[test]
    fn without_a_server_the_pool_is_the_listener_s() {
        let record = Record {
            server: None,
            ..record()
        };
        let text = written(record, LogFormat::Text);
        assert!(text.contains(" server=- pool=front "), "{text}");
    }

    #[test]
    fn what_is_forgotten_is_unknown_and_what_is_added_later_is_shown() {
        let names = names();
        let shared = names.clone();
        shared.forget_listener(ListenerId::new(0));
        shared.forget_server(ServerId::new(1));
        let text = written_with(&names, record(), LogFormat::Text);
        assert!(
            text.contains(" listener=- client=127.0.0.1:51234 server=- pool=- "),
            "{text}"
        );
        let text = written_with(&names, record(), LogFormat::Json);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(
            ["listener", "server", "pool"]
                .iter()
                .all(|key| json[key].is_null())
        );
        shared.add_server(ServerId::new(1), "c".into(), "new".into());
        let text = written_with(&names, record(), LogFormat::Text);
        assert!(
            text.contains(" listener=- ") && text.contains(" server=c pool=new "),
            "{text}"
        );
    }

    #[test]
    fn a_full_queue_drops_and_does_not_wait() {
        let (sender, _receiver) = bounded(1);
        let recorder = Recorder(sender);
        assert!(recorder.put(record()));
        assert!(!recorder.put(record()));
    }
}
