//! What every connection came to, told by three witnesses: its client, its server and the access
//! log. Once all have spoken the connection is judged against its plan.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::endpoint::{Outcome, Seen};
use crate::harness::lines::AccessLine;
use crate::plan::{Ending, GREETING_BYTES, Plan};

/// The first client's address; each connection has its own, so that a log line tells its number.
const FIRST_CLIENT: u32 = 0x7f01_0000;
/// Failures that are kept in words.
const TOLD_MAX: usize = 20;

/// The judge.
#[derive(Debug)]
pub(crate) struct Ledger {
    seed: u64,
    /// Deaths of servers so far: they may cut an orderly plan short.
    deaths: AtomicU64,
    /// Bytes that ends received so far.
    pub(crate) bytes: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    open: HashMap<u64, Record>,
    totals: Totals,
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct Record {
    deaths_before: u64,
    client: Option<Outcome>,
    server: Option<Outcome>,
    line: Option<AccessLine>,
}

/// The sums of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: u64,
    pub(crate) lines: u64,
    pub(crate) upstream_bytes: u64,
    pub(crate) downstream_bytes: u64,
    pub(crate) ends: BTreeMap<String, u64>,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<String>,
}

/// Where the client of connection `number` connects from.
pub(crate) fn client_address(number: u64) -> Ipv4Addr {
    let number = u32::try_from(number % (0x7fff_0000 - u64::from(FIRST_CLIENT)));
    Ipv4Addr::from(FIRST_CLIENT + number.expect("below 2^24"))
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        let (deaths, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            seed,
            deaths,
            bytes,
            book: Mutex::default(),
        }
    }

    /// A server stops listening, or more, from now on.
    pub(crate) fn death(&self) {
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }

    /// Connection `number` is about to be made.
    pub(crate) fn begin(&self, number: u64) {
        let deaths_before = self.deaths.load(Ordering::SeqCst);
        let mut book = self.book();
        book.totals.connections += 1;
        book.open.insert(
            number,
            Record {
                deaths_before,
                ..Record::default()
            },
        );
    }

    /// What the client saw.
    pub(crate) fn client(&self, number: u64, outcome: Outcome) {
        self.witness(number, outcome, |record| &mut record.client);
    }

    /// What the server saw.
    pub(crate) fn server(&self, number: u64, outcome: Outcome) {
        self.witness(number, outcome, |record| &mut record.server);
    }

    /// A line of the access log.
    pub(crate) fn line(&self, line: AccessLine) {
        let client: std::net::SocketAddrV4 = line.field("client").parse().expect("an address");
        let number = u64::from(u32::from(*client.ip()) - FIRST_CLIENT);
        let mut book = self.book();
        book.totals.lines += 1;
        *book.totals.ends.entry(line.end().to_owned()).or_default() += 1;
        book.totals.upstream_bytes += line.bytes("upstream_bytes");
        book.totals.downstream_bytes += line.bytes("downstream_bytes");
        match book.open.get_mut(&number) {
            Some(record) if record.line.is_none() => record.line = Some(line),
            _ => book.fail(format!("a line too many: {}", line.text())),
        }
        self.judge_if_complete(&mut book, number);
    }

    /// A failure that is no connection's.
    pub(crate) fn fail(&self, what: String) {
        self.book().fail(what);
    }

    /// Connections that some witness has not spoken of.
    pub(crate) fn open(&self) -> usize {
        self.book().open.len()
    }

    /// Judges what is left by what is known, and gives the sums.
    pub(crate) fn close(&self) -> Totals {
        let numbers: Vec<u64> = self.book().open.keys().copied().collect();
        let mut book = self.book();
        for number in numbers {
            self.judge(&mut book, number);
        }
        let (connections, lines) = (book.totals.connections, book.totals.lines);
        if connections != lines {
            book.fail(format!("{connections} connections, {lines} access lines"));
        }
        book.totals.clone()
    }

    fn witness(
        &self,
        number: u64,
        outcome: Outcome,
        place: fn(&mut Record) -> &mut Option<Outcome>,
    ) {
        self.bytes.fetch_add(outcome.received, Ordering::Relaxed);
        let mut book = self.book();
        match book.open.get_mut(&number).map(place) {
            Some(place) if place.is_none() => *place = Some(outcome),
            _ => book.fail(format!(
                "connection {number} has one end too many: {outcome:?}"
            )),
        }
        self.judge_if_complete(&mut book, number);
    }

    fn judge_if_complete(&self, book: &mut Book, number: u64) {
        let complete = book.open.get(&number).is_some_and(|record| {
            record.client.is_some() && record.server.is_some() && record.line.is_some()
        });
        if complete {
            self.judge(book, number);
        }
    }

    fn judge(&self, book: &mut Book, number: u64) {
        let Some(record) = book.open.remove(&number) else {
            return;
        };
        let plan = Plan::new(self.seed, number);
        let died = self.deaths.load(Ordering::SeqCst) != record.deaths_before;
        match verdict(&plan, &record, died) {
            Ok(()) => book.totals.passed += 1,
            Err(why) => book.fail(format!(
                "connection {number} ({:?}, {} up, {} down): {why}: {record:?}",
                plan.ending,
                plan.upstream.bytes(),
                plan.downstream.bytes()
            )),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("no thread panics while it holds the book")
    }
}

impl Book {
    fn fail(&mut self, what: String) {
        self.totals.failed += 1;
        if self.totals.failures.len() < TOLD_MAX {
            self.totals.failures.push(what);
        }
    }
}

/// `died`: a server died between the connection's begin and now.
fn verdict(plan: &Plan, record: &Record, died: bool) -> Result<(), &'static str> {
    let Some(client) = &record.client else {
        return Err("the client never ended");
    };
    let Some(line) = &record.line else {
        return Err("no access line");
    };
    let ends = [Some(client), record.server.as_ref()].map(|end| end.map(|end| &end.ending));
    if ends
        .iter()
        .flatten()
        .any(|seen| matches!(seen, Seen::Wrong(_)))
    {
        return Err("an end saw what it must not");
    }
    if let Some(server) = &record.server
        && (server.received > client.sent || client.received > server.sent)
    {
        return Err("more came out than went in");
    }
    match (plan.ending, ends) {
        (Ending::ClientReset, [Some(Seen::Own), server]) => match server {
            Some(Seen::Reset) if line.end() == "client_reset" => Ok(()),
            // Reset before its first byte, or its server died.
            None if line.end() == "client_reset" => Ok(()),
            _ if died => Ok(()),
            _ => Err("the client's reset did not reach the server as one"),
        },
        (Ending::ServerReset, [Some(Seen::Reset), Some(Seen::Own)]) => {
            let right = line.end() == "server_reset";
            if right {
                Ok(())
            } else {
                Err("the server's reset has another word")
            }
        }
        (_, [Some(Seen::Fin), Some(Seen::Fin)]) => orderly(plan, client, record, line),
        (_, [Some(Seen::Reset), _]) if died => Ok(()),
        // All was said before the server died: what its kernel still held, nobody can know.
        (_, [Some(Seen::Fin), _]) if died && client.received == plan.downstream.bytes() => Ok(()),
        _ => Err("the ends do not fit the plan"),
    }
}

/// Both ends saw FIN: everything was passed on, and counted.
fn orderly(
    plan: &Plan,
    client: &Outcome,
    record: &Record,
    line: &AccessLine,
) -> Result<(), &'static str> {
    let (upstream, downstream) = (plan.upstream.bytes(), plan.downstream.bytes());
    let server = record.server.as_ref().map_or(0, |server| server.received);
    let word = line.end();
    if client.received != downstream || server != upstream {
        return Err("bytes are missing behind an end in order");
    }
    if line.bytes("upstream_bytes") != upstream + GREETING_BYTES
        || line.bytes("downstream_bytes") != downstream
    {
        return Err("the access log counts other bytes");
    }
    let right = match plan.ending {
        Ending::ClientFirst => word == "client_closed",
        Ending::ServerFirst => word == "server_closed",
        Ending::Both => word == "client_closed" || word == "server_closed",
        Ending::ClientReset | Ending::ServerReset => return Err("a reset became a FIN"),
    };
    if right {
        Ok(())
    } else {
        Err("another word for the end in order")
    }
}
