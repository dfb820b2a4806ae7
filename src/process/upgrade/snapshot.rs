//! What this process is, in the words of `handover::world`: who is who by name, what the operator wants,
//! what was found, and the listening sockets.
//!
//! The main thread makes what it alone knows and only reads; the sockets of doors are the workers', and
//! whoever sends the world gathers them.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, bounded};
use socket2::Socket;

use super::super::absent::Absent;
use super::super::serving::{ListenerSeat, ServerSeat, Serving};
use super::super::start::Running;
use crate::clock::Now;
use crate::config::{Answers, Config, Found, Pool, Server};
use crate::handover::world::{
    AbsentState, AddedState, AdminState, AnswerState, BucketState, DoorState, DrainState,
    EventState, FindingsState, FoundState, ListenerState, PoolState, ProcessState, ServerState,
    WeightState, WishesState, World,
};
use crate::pool::drain::Drain;
use crate::roster::Standing;
use crate::telemetry::events::Events;
use crate::worker::{Command, DoorId, DoorSocket};

/// Sources of one listener whose debts go over: what the others owe is forgiven.
const BUCKETS_MAX: usize = 10_000;
/// A worker answers within a turn of its loop.
const DOORS_TIMEOUT: Duration = Duration::from_secs(5);

/// A world, and where its descriptors come from.
#[derive(Debug)]
pub(super) struct Parts {
    world: World,
    /// Parallel to the doors of the world.
    doors: Vec<DoorId>,
    /// What each worker says of its doors, by its index.
    sockets: Vec<Receiver<Vec<DoorSocket>>>,
    /// Those that follow the doors'.
    others: Vec<OwnedFd>,
}

impl Parts {
    /// The world, and the sockets of its doors in their order, which [`Self::others`] follow.
    ///
    /// # Errors
    /// A worker does not answer.
    pub(super) fn gather(&self) -> io::Result<(World, Vec<Arc<Socket>>)> {
        let mut by_door: HashMap<DoorId, Vec<DoorSocket>> = HashMap::new();
        for worker in &self.sockets {
            let sockets = worker.recv_timeout(DOORS_TIMEOUT);
            let late = |_| io::Error::other("a worker takes long to answer");
            for socket in sockets.map_err(late)? {
                by_door.entry(socket.door).or_default().push(socket);
            }
        }
        let mut world = self.world.clone();
        let mut open = Vec::new();
        for (id, door) in self.doors.iter().zip(&mut world.doors) {
            let mut sockets = by_door.remove(id).unwrap_or_default();
            door.is_shared = sockets.first().is_some_and(|socket| socket.is_shared);
            if door.is_shared {
                sockets.truncate(1);
            }
            door.descriptors = u32::try_from(sockets.len()).map_err(io::Error::other)?;
            for socket in sockets {
                open.push(socket.socket);
            }
        }
        debug_assert_eq!(open.len() + self.others.len(), world.descriptors());
        Ok((world, open))
    }

    /// Descriptors that belong to no door.
    pub(super) fn others(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.others.iter().map(AsFd::as_fd)
    }
}

#[cfg(test)]
impl Parts {
    /// Of a process that serves nothing.
    pub(super) fn nothing() -> Self {
        Self {
            world: World::default(),
            doors: Vec::new(),
            sockets: Vec::new(),
            others: Vec::new(),
        }
    }
}

impl Running {
    /// All that the new process is told before it is ready.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub(super) fn parts(&self) -> io::Result<Parts> {
        let serving = &self.serving;
        let (admin, mut others) = self.admin_state()?;
        let mut passed = Vec::new();
        for socket in self.supervision.passed.iter() {
            passed.push(socket.name.clone());
            others.push(socket.another()?.into());
        }
        let (doors, states) = doors(serving, |door| self.socket_files.contains_key(&door));
        let sockets = self.ask_for_doors();
        Ok(Parts {
            world: World {
                doors: states,
                admin,
                passed,
                ..self.world()
            },
            doors,
            sockets,
            others,
        })
    }

    /// Who is who, and nothing that a descriptor belongs to.
    pub(in crate::process) fn world(&self) -> World {
        let (serving, now) = (&self.serving, Now::read());
        let loaded = self.as_found(&self.loaded.config);
        let mut wishes = wishes(&loaded, &serving.config);
        wishes.absent = absent(&serving.absent, self.discovery.weights());
        World {
            process: self.process_state(),
            listeners: listeners(serving, now),
            pools: self.pool_states(),
            servers: servers(serving),
            answers: answers(self.discovery.applied()),
            wishes,
            events: events(&self.public.events),
            ..World::default()
        }
    }

    fn process_state(&self) -> ProcessState {
        ProcessState {
            pid: process::id(),
            started: self.upgrade.started.as_nanoseconds(),
            upgrades: self.upgrade.before,
            file: self.loaded.file.clone(),
            digest: self.loaded.digest.clone(),
            // Only known once the workers stand still: the counts have it.
            last_connection: 0,
            connections: self.threads.ledger.process_connections(),
            has_left: self.has_left,
            kept: self.survival.state(),
        }
    }

    fn admin_state(&self) -> io::Result<(AdminState, Vec<OwnedFd>)> {
        let mut state = AdminState::default();
        let mut descriptors = Vec::new();
        let Some(admin) = &self.threads.admin else {
            return Ok((state, descriptors));
        };
        let sockets = admin.sockets()?;
        if let Some((path, socket)) = sockets.socket {
            state.socket = Some(path);
            descriptors.push(socket);
        }
        if let Some(http) = sockets.http {
            let listener = TcpListener::from(http.socket);
            state.http = Some(listener.local_addr()?);
            state.http_written = Some(http.written);
            descriptors.push(listener.into());
        }
        Ok((state, descriptors))
    }

    /// Those that are served, then those that have left.
    fn pool_states(&self) -> Vec<PoolState> {
        let seated = self.serving.pools.iter();
        let seated = seated.map(|pool| (pool.id, pool.name.to_string(), false));
        let left = self.serving.left_pools.iter();
        let left = left.filter_map(|(id, _)| {
            let name = self.public.names.pool(*id)?;
            Some((*id, name.to_string(), true))
        });
        let all = seated.chain(left);
        all.map(|(id, name, has_left)| PoolState {
            number: number(id.index()),
            name,
            has_left,
        })
        .collect()
    }

    /// Each worker's answer comes by a way of its own, in whichever order.
    fn ask_for_doors(&self) -> Vec<Receiver<Vec<DoorSocket>>> {
        let outboxes = self.threads.outboxes.iter();
        let ask = outboxes.map(|outbox| {
            let (sender, sockets) = bounded(1);
            // A worker that has ended has no doors, which is found out.
            outbox.send(Command::Doors(sender)).unwrap_or(());
            sockets
        });
        ask.collect()
    }
}

/// As ids go over.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("an id has 32 bits")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Those that are served, then those that have left.
fn listeners(serving: &Serving, now: Now) -> Vec<ListenerState> {
    let configs = &serving.config.listeners;
    let seated = configs.iter().zip(&serving.listeners);
    let seated = seated.map(|(config, seat)| ListenerState {
        pool: serving.pool_name(config.pool).to_string(),
        idle_timeout: nanoseconds(config.idle_timeout),
        half_close_timeout: nanoseconds(config.half_close_timeout),
        buckets: buckets(seat, now),
        ..listener(seat)
    });
    let left = serving.left_listeners.iter().map(|left| ListenerState {
        has_left: true,
        pool: left.pool.to_string(),
        idle_timeout: nanoseconds(left.idle_timeout),
        half_close_timeout: nanoseconds(left.half_close_timeout),
        ..listener(&left.listener)
    });
    seated.chain(left).collect()
}

fn listener(seat: &ListenerSeat) -> ListenerState {
    ListenerState {
        number: number(seat.id.index()),
        name: seat.name.to_string(),
        ..ListenerState::default()
    }
}

fn buckets(seat: &ListenerSeat, now: Now) -> Vec<BucketState> {
    let owing = seat.tally.sources().owing(BUCKETS_MAX, now).into_iter();
    let owing = owing.map(|(source, full_at)| BucketState {
        source: source.to_string(),
        full_at: full_at.as_nanoseconds(),
    });
    owing.collect()
}

/// Their sockets are still to be counted.
fn doors(serving: &Serving, has_file: impl Fn(DoorId) -> bool) -> (Vec<DoorId>, Vec<DoorState>) {
    let listeners = serving.listeners.iter();
    let doors = listeners.flat_map(|listener| {
        let doors = listener.doors.iter();
        doors.map(move |door| (listener.id, door))
    });
    let states = doors.map(|(listener, door)| {
        let state = DoorState {
            listener: number(listener.index()),
            written: door.written.to_string(),
            actual: door.actual.to_string(),
            has_file: has_file(door.id),
            ..DoorState::default()
        };
        (door.id, state)
    });
    states.unzip()
}

/// Those that are served, then those that have left.
fn servers(serving: &Serving) -> Vec<ServerState> {
    let pools = serving.config.pools.iter().zip(&serving.pools);
    let seated = pools.flat_map(|(config, pool)| {
        let is_checked = config.health.is_some();
        let servers = pool.servers.iter();
        servers.map(move |seat| server(&pool.name, seat, is_checked))
    });
    let leaving = serving.leaving.iter().map(|leaving| ServerState {
        has_left: true,
        ..server(&leaving.pool, &leaving.server, false)
    });
    seated.chain(leaving).collect()
}

fn server(pool: &str, seat: &ServerSeat, is_checked: bool) -> ServerState {
    ServerState {
        number: number(seat.id.index()),
        pool: pool.to_owned(),
        name: seat.name.to_string(),
        address: seat.address.to_string(),
        has_left: false,
        standing: Some(seat.standing.word().to_owned()),
        drain: seat.drain.as_deref().map(drain),
        findings: is_checked.then(|| findings(seat)),
        ramp_began: seat.tally.ramp_began().as_nanoseconds(),
    }
}

fn drain(drain: &Drain) -> DrainState {
    let pace = drain.pace();
    DrainState {
        end: drain.end().word().to_owned(),
        interval: pace.rate.map(|rate| nanoseconds(rate.interval())),
        quiet: nanoseconds(pace.quiet),
        deadline: pace.deadline.map(nanoseconds),
        begun: drain.begun().as_nanoseconds(),
        began_with: drain.began_with(),
        closed: drain.closed(),
    }
}

fn findings(seat: &ServerSeat) -> FindingsState {
    let findings = seat.tally.checkup().findings();
    FindingsState {
        is_up: findings.is_up,
        since: findings.since.as_nanoseconds(),
        last: findings.last.map(|last| last.word().to_owned()),
        share_percent: Some(findings.share_percent),
        reason: findings.reason.into(),
    }
}

fn answers(answers: &Answers) -> Vec<AnswerState> {
    let answers = answers.iter().map(|(question, servers)| AnswerState {
        source: question.to_string(),
        found: servers.iter().map(found).collect(),
    });
    answers.collect()
}

fn found(found: &Found) -> FoundState {
    FoundState {
        name: found.name.as_deref().map(str::to_owned),
        address: found.address.to_string(),
        weight: found.weight,
        max_connections: found.max_connections.map(Into::into),
        backup: found.backup,
    }
}

/// How `running` differs from what was loaded, which has what was found, because an operator wanted it
/// so. What neither has is not of his making.
fn wishes(loaded: &Config, running: &Config) -> WishesState {
    let mut wishes = WishesState::default();
    let before: HashMap<_, _> = loaded.pools.iter().map(|p| (&*p.name, p)).collect();
    for now in &running.pools {
        let Some(before) = before.get(&*now.name) else {
            continue;
        };
        if now.algorithm != before.algorithm {
            let (name, algorithm) = (now.name.to_string(), now.algorithm.name());
            wishes.algorithms.insert(name, algorithm.to_owned());
        }
        note_servers(before, now, &mut wishes);
    }
    wishes
}

fn note_servers(before: &Pool, now: &Pool, wishes: &mut WishesState) {
    fn by_name(pool: &Pool) -> HashMap<(&str, String), &Server> {
        let servers = pool.servers.iter();
        let named = servers.map(|it| ((&*it.name, it.address.to_string()), it));
        named.collect()
    }
    let (before, after) = (by_name(before), by_name(now));
    let pool = || now.name.to_string();
    for server in &now.servers {
        let (name, address) = (&*server.name, server.address.to_string());
        match before.get(&(name, address.clone())) {
            Some(before) if before.weight != server.weight => wishes.weights.push(WeightState {
                pool: pool(),
                server: name.to_owned(),
                weight: server.weight,
            }),
            None if server.found_by.is_none() => wishes.added.push(AddedState {
                pool: pool(),
                name: name.to_owned(),
                address,
                weight: server.weight,
                max_connections: server.max_connections.map(Into::into),
                backup: server.backup,
            }),
            // It has its own, or was found since.
            Some(_) | None => {}
        }
    }
    let gone = before.iter().filter(|(key, server)| {
        // Who was found and is not is no wish.
        server.found_by.is_none() && !after.contains_key(*key)
    });
    let gone = gone.map(|((name, _), _)| (pool(), (*name).to_owned()));
    wishes.removed.extend(gone);
    wishes.removed.sort_unstable();
}

/// What is wanted of servers that are not found at present, in both respects.
fn absent(standings: &Absent<Standing>, weights: &Absent<u32>) -> Vec<AbsentState> {
    let standings = standings.iter().map(|(pool, name, address, source, wish)| {
        let standing = Some(wish.word().to_owned());
        let state = (pool, name, address, source);
        (state, standing, None)
    });
    let weights = weights.iter().map(|(pool, name, address, source, wish)| {
        let state = (pool, name, address, source);
        (state, None, Some(*wish))
    });
    let all = standings.chain(weights);
    all.map(
        |((pool, name, address, source), standing, weight)| AbsentState {
            pool: pool.to_owned(),
            name: name.to_owned(),
            address: address.to_string(),
            source: source.to_string(),
            standing,
            weight,
        },
    )
    .collect()
}

/// What happened lately.
pub(super) fn events(events: &Events) -> Vec<EventState> {
    let events = events.after(0).into_iter().map(|event| EventState {
        number: event.number,
        time: microseconds(event.time),
        kind: event.kind.word().to_owned(),
        text: event.text.to_string(),
    });
    events.collect()
}

fn microseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
