//! What a process is, as the next one must know it before it can take connections over: who is who by
//! name, what the operator wants of it, what was found; and, once all workers stand still, what was
//! counted.
//!
//! Plain values, and one list of descriptors beside them, in the order that [`World::descriptors`] says.
//! Every field has a default and unknown ones are passed over, so that a newer program reads what an
//! older one has sent. Numbers are those of whoever sends, and only tie these values and those of
//! [`super::connection`] together; times are nanoseconds of CLOCK_MONOTONIC, which all processes of one
//! boot share. Addresses and words are written as in a config, in the API and in metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All that is known by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct World {
    /// The process as a whole.
    pub process: ProcessState,
    /// Those that are served, then those that have left and still hold connections.
    pub listeners: Vec<ListenerState>,
    /// Listening sockets, each with one descriptor or more.
    pub doors: Vec<DoorState>,
    /// Those that are served, then those that have left and still hold connections.
    pub pools: Vec<PoolState>,
    /// The same of servers.
    pub servers: Vec<ServerState>,
    /// What names and files have answered last.
    pub answers: Vec<AnswerState>,
    /// How what is served differs from the file, because an operator wanted it so.
    pub wishes: WishesState,
    /// Where the admin side is reached.
    pub admin: AdminState,
    /// What happened lately, oldest first.
    pub events: Vec<EventState>,
    /// Sockets that whoever started the first process has passed to it, by the names given there.
    pub passed: Vec<String>,
}

impl World {
    /// How many descriptors go with it: those of each door, of the admin side's unix socket and of its
    /// HTTP, where they are there, and of each passed socket, in that order.
    pub fn descriptors(&self) -> usize {
        let doors = self.doors.iter().map(|door| door.descriptors as usize);
        let admin = [self.admin.socket.is_some(), self.admin.http.is_some()];
        let admin = admin.into_iter().filter(|is_there| *is_there).count();
        doors.sum::<usize>() + admin + self.passed.len()
    }
}

/// The process as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessState {
    /// Its number.
    pub pid: u32,
    /// When the first process of this line began to serve.
    pub started: u64,
    /// How many processes of this line have handed over to the next one.
    pub upgrades: u64,
    /// What is served was read from there; `None` where arguments gave it.
    pub file: Option<PathBuf>,
    /// A digest of what it said then: another one means that the file has changed since.
    pub digest: Option<String>,
    /// The last id given to a connection.
    pub last_connection: u64,
    /// How many it held when this was said.
    pub connections: u32,
    /// An operator wants it to get no traffic.
    pub has_left: bool,
    /// What somebody keeps for it, should it be killed.
    pub kept: KeptState,
}

/// What somebody keeps for a process; nothing where there are no shelves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptState {
    /// Where the keeper is; `None` is the service manager.
    pub keeper: Option<PathBuf>,
    /// What the memory is called there: its own, and what was not dropped yet.
    pub shelves: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerState {
    /// What connections call it.
    pub number: u32,
    /// What users call it.
    pub name: String,
    /// It is in the config no more.
    pub has_left: bool,
    /// The name of the pool that takes what no other rule does. This and what follows is asked about
    /// where the new config has no such listener, for connections that go on.
    pub pool: String,
    /// Nanoseconds without a byte either way.
    pub idle_timeout: u64,
    /// Nanoseconds without a byte where one side has ended.
    pub half_close_timeout: u64,
    /// Sources whose buckets of tokens are not full.
    pub buckets: Vec<BucketState>,
}

/// What a source owes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketState {
    /// The address, cut to the source's prefix, as a decimal number of 128 bits; IPv4 is mapped into IPv6.
    pub source: String,
    /// When its bucket will be full.
    pub full_at: u64,
}

/// A listening socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorState {
    /// Whose it is.
    pub listener: u32,
    /// As the config has it.
    pub written: String,
    /// As the kernel has it: port 0 has become a real one.
    pub actual: String,
    /// All workers wait at the same socket, of which there is one descriptor. Else there is one for each
    /// of the workers, and each has its own queue.
    pub is_shared: bool,
    /// It has a file, which this process would remove at its end.
    pub has_file: bool,
    /// How many.
    pub descriptors: u32,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolState {
    /// What connections call it.
    pub number: u32,
    /// What users call it.
    pub name: String,
    /// It is in the config no more.
    pub has_left: bool,
}

/// A server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerState {
    /// What connections call it.
    pub number: u32,
    /// The name of its pool.
    pub pool: String,
    /// Its own.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// It is in the config no more.
    pub has_left: bool,
    /// Whether the operator lets new connections in, in the word of the API.
    pub standing: Option<String>,
    /// How its connections are being brought to their end.
    pub drain: Option<DrainState>,
    /// What health checks have found; `None` where there are none.
    pub findings: Option<FindingsState>,
    /// When its share began to grow; 0 where it was there from the start.
    pub ramp_began: u64,
}

/// A drain under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainState {
    /// As what its connections end, in the word of the access log.
    pub end: String,
    /// Quiet connections closed, each after so many nanoseconds.
    pub interval: Option<u64>,
    /// Nanoseconds of silence that make one quiet.
    pub quiet: u64,
    /// Nanoseconds from its beginning to the end of all.
    pub deadline: Option<u64>,
    /// When it began.
    pub begun: u64,
    /// Connections there were then.
    pub began_with: u32,
    /// Connections it has closed.
    pub closed: u32,
}

/// What health checks have found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FindingsState {
    /// Whether new connections may go to it; `None` before the first answer.
    pub is_up: Option<bool>,
    /// Since when that is so.
    pub since: u64,
    /// How the last check ended, in the word of the API.
    pub last: Option<String>,
    /// How much of its weight the server wants.
    pub share_percent: Option<u16>,
    /// In words.
    pub reason: String,
}

/// What a name or a file has answered last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerState {
    /// As the config has it.
    pub source: String,
    /// The servers that came of it.
    pub found: Vec<FoundState>,
}

/// A server that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundState {
    /// Its name, where the answer gives one.
    pub name: Option<String>,
    /// Where it listens.
    pub address: String,
    /// Where the answer says so.
    pub weight: Option<u32>,
    /// Where the answer says so.
    pub max_connections: Option<u32>,
    /// It is a spare one.
    pub backup: bool,
}

/// What an operator has changed without the file. Taken up where the file is still the same; a file
/// that has changed is the last word, as with a reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WishesState {
    /// Weights that were set.
    pub weights: Vec<WeightState>,
    /// Algorithms, in the word of the config, by pool.
    pub algorithms: BTreeMap<String, String>,
    /// Servers that were added, by pool.
    pub added: Vec<AddedState>,
    /// Servers that were removed: pool and name.
    pub removed: Vec<(String, String)>,
    /// What is wanted of found servers that are not found at present.
    pub absent: Vec<AbsentState>,
}

/// A weight that was set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightState {
    /// Whose server.
    pub pool: String,
    /// Which one.
    pub server: String,
    /// Its weight.
    pub weight: u32,
}

/// A server that was added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddedState {
    /// Whose.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its weight.
    pub weight: u32,
    /// Its maximum.
    pub max_connections: Option<u32>,
    /// It is a spare one.
    pub backup: bool,
}

/// What is wanted of a server that is not found at present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AbsentState {
    /// Whose.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Where it listened.
    pub address: String,
    /// What it came from, as the config has it.
    pub source: String,
    /// The word of the API.
    pub standing: Option<String>,
    /// A weight that was set.
    pub weight: Option<u32>,
}

/// Where the admin side is reached; the listening sockets go along.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminState {
    /// The unix socket.
    pub socket: Option<PathBuf>,
    /// As the kernel has it.
    pub http: Option<SocketAddr>,
    /// As the config has it: its port may be 0.
    pub http_written: Option<SocketAddr>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventState {
    /// Counted from 1.
    pub number: u64,
    /// Microseconds of the wall clock since 1970.
    pub time: u64,
    /// The word of the API.
    pub kind: String,
    /// One line for people.
    pub text: String,
}

/// What was counted, over all workers; said when all of them stand still.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Of the process, by names of their own.
    pub process: BTreeMap<String, u64>,
    /// Connections by how they ended, in the words of the access log.
    pub ends: BTreeMap<String, u64>,
    /// How late health checks began.
    pub lag: HistogramState,
    /// By listener's number.
    pub listeners: BTreeMap<u32, ListenerCounts>,
    /// By pool's number.
    pub pools: BTreeMap<u32, PoolCounts>,
    /// By server's number.
    pub servers: BTreeMap<u32, ServerCounts>,
    /// What happened lately, oldest first, in place of what the world says: time has passed since.
    pub events: Vec<EventState>,
}

/// What was counted of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerCounts {
    /// Accepted, refused ones included.
    pub accepted: u64,
    /// Ended, refused ones included.
    pub ended: u64,
    /// Turned away for limits of its own.
    pub over_limits: u64,
    /// Turned away, by the words of the access log.
    pub refused: BTreeMap<String, u64>,
}

/// What was counted of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolCounts {
    /// From the pick of a server to its accepting.
    pub connect: HistogramState,
    /// From accept to end.
    pub connection: HistogramState,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistogramState {
    /// Upper bounds in microseconds with how many, not cumulative; what exceeds all is at `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
    /// Of all samples.
    pub sum_microseconds: u64,
}

/// What was counted of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerCounts {
    /// Connections that it accepted.
    pub connected: u64,
    /// Bytes delivered to it.
    pub upstream_bytes: u64,
    /// Bytes from it, delivered to clients.
    pub downstream_bytes: u64,
    /// Tries that came to nothing, by the words of metrics.
    pub failed: BTreeMap<String, u64>,
    /// Health checks, by the words of metrics.
    pub checks: BTreeMap<String, u64>,
    /// Bad findings of connections in a row.
    pub bad_in_a_row: u32,
    /// Until when it is left alone for them.
    pub ejected_until: u64,
    /// How often it was.
    pub ejections: u32,
    /// How far its drain has come, where there is one: it has gone on since the world was told.
    pub drain: Option<DrainCounts>,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainCounts {
    /// Connections it has closed.
    pub closed: u32,
    /// Nanoseconds from its beginning before which it closes no further one.
    pub next_at: u64,
}
