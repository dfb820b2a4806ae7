//! The steps of taking over, each done by the main thread; what they are for, and in which order they
//! come, is said in `heritage`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use super::doors::LastCalls;
use super::intake::Held;
use super::translate::NUMBER_MAX;
use super::{Heir, IntakeError, counts, wishes};
use crate::clock::Now;
use crate::config::Config;
use crate::end::End;
use crate::handover::world::{Counts, EventState, WishesState};
use crate::ids::ConnectionId;
use crate::pool::drain::{Drain, Pace, Scope};
use crate::process::StartError;
use crate::process::absent::Absent;
use crate::process::apply::Outcome;
use crate::process::listen::Stretch;
use crate::process::start::Running;
use crate::roster::Standing;
use crate::systemd::Passed;
use crate::telemetry::events::{Event, Kind};
use crate::worker::{Change, Command, Door};

impl Running {
    /// Applies `config` on top of what was served before. Nobody notices yet.
    ///
    /// # Errors
    /// As of any start: an address cannot be had, or descriptors are too few.
    pub(in crate::process) fn prepare(
        &mut self,
        heir: Heir,
        config: &Config,
    ) -> Result<Outcome, StartError> {
        self.room.surplus = heir.doors.surplus(self.room.workers) as u64;
        let wanted = heir.wishes(self.loaded.digest.as_ref());
        let config = wishes::with_servers(config.clone(), &wanted);
        let known = wishes::answers(&config, &heir.world.answers);
        self.discovery.believe(known);
        let weights = self.note_absent(&config, &wanted);
        self.heir = Some(Box::new(heir));
        if !self.look_up(&config) {
            return Ok(Outcome::Stopping);
        }
        let complete = wishes::with_settings(self.with_found(&config), &wanted);
        let outcome = self.apply_anew(complete, Pace::PATIENT)?;
        if outcome == Outcome::Applied {
            self.note_applied();
            self.note_weights(weights);
        }
        Ok(outcome)
    }

    /// What is wanted of servers that are not found at present; the weights among that.
    fn note_absent(&mut self, config: &Config, wanted: &WishesState) -> Absent<u32> {
        let mut weights = Absent::default();
        for state in &wanted.absent {
            let Some((pool, server)) = wishes::absent(config, state) else {
                continue;
            };
            let standing = super::past::standing(state.standing.as_deref());
            if standing != Standing::Ready {
                self.serving.note_absent(&pool, &server, standing);
            }
            if let Some(weight) = state.weight {
                weights.note(&pool, &server, weight);
            }
        }
        weights
    }

    /// Tells the workers what only an heir has to tell them: verdicts, which go before the prober's own,
    /// and listeners that connections are of though the config has them no more.
    pub(in crate::process) fn tell_past(&self) {
        let Some(heir) = &self.heir else {
            return;
        };
        for verdict in &heir.past.verdicts {
            self.tell_all(|| Command::Verdict(*verdict));
        }
        let listeners = &heir.past.left_listeners;
        self.tell_all(|| {
            Command::Change(Box::new(Change {
                listeners: listeners.clone(),
                ..Change::default()
            }))
        });
    }

    /// Keeps `open`, the doors by worker, from being opened where somebody else accepts there.
    pub(in crate::process) fn hold_back(&mut self, open: Vec<Vec<Door>>) -> Vec<Vec<Door>> {
        match &mut self.heir {
            Some(heir) => {
                heir.held_back = open;
                Vec::new()
            }
            None => open,
        }
    }

    /// The access log must know the names of those who are no more.
    pub(in crate::process) fn name_left(&self) {
        let Some(heir) = &self.heir else {
            return;
        };
        let names = &self.public.names;
        for left in &self.serving.left_listeners {
            let name = Arc::clone(&left.listener.name);
            names.add_listener(left.listener.id, name, Arc::clone(&left.pool));
        }
        for leaving in &self.serving.leaving {
            let name = Arc::clone(&leaving.server.name);
            names.add_server(leaving.server.id, name, Arc::clone(&leaving.pool));
        }
        for (pool, name) in &heir.past.left_pools {
            names.add_pool(*pool, Arc::clone(name));
        }
    }

    /// From now on the workers do nothing but what they are told, for ever where it is not
    /// [`Self::take_up`].
    ///
    /// # Errors
    /// One does not answer.
    pub(in crate::process) fn hold_workers(&mut self) -> Result<(), IntakeError> {
        let held = Held::all(&self.threads.outboxes)?;
        if let Some(heir) = &mut self.heir {
            heir.held = Some(held);
        }
        Ok(())
    }

    /// Adds what was counted before. The workers stand still.
    pub(in crate::process) fn add_counts(&mut self, counted: &Counts) {
        let Some(heir) = &mut self.heir else {
            return;
        };
        let told = match counted.events.as_slice() {
            [] => &heir.world.events,
            latest => latest,
        };
        self.public.events.restore(events(told));
        let last = counted.process.get(counts::LAST_CONNECTION).copied();
        let known = heir.world.process.last_connection;
        let last = last.unwrap_or_default().max(known);
        heir.past.last_id = ConnectionId(last.min(NUMBER_MAX));
        let failed = counted.process.get(counts::UPGRADES_FAILED).copied();
        let total = &self.public.upgrades_failed;
        total.fetch_add(failed.unwrap_or_default(), Ordering::Relaxed);
        if let Some(counters) = self.threads.counters.first() {
            let resolutions = self.discovery.resolutions();
            counts::add(counted, &heir.past, counters, &resolutions);
        }
        if let Some(prober) = &self.threads.prober {
            counts::add_lag(counted, &prober.lag());
        }
        let seated = self.serving.servers().map(|(_, server)| server);
        let leaving = self.serving.leaving.iter().map(|leaving| &leaving.server);
        counts::go_on_with_drains(counted, &heir.past, seated.chain(leaving));
        self.begin_to_tell_anew();
    }

    /// Nobody else serves any more: everything goes on here. `passed` is kept for listeners that come.
    pub(in crate::process) fn take_up(&mut self) {
        let Some(heir) = self.heir.take() else {
            return;
        };
        let Heir {
            mut doors,
            past,
            mut held_back,
            held,
            ..
        } = *heir;
        if let Some(held) = held {
            held.go_on(&past);
        }
        // Connections go on before anybody new comes in: with a thousand ports this takes a while.
        doors.join_surplus(&mut held_back);
        self.listen_anew(&held_back);
        self.open_doors(held_back);
        self.go_on_with_drains();
        // Of those who have left, only those with connections are shown.
        self.note_empty(Now::read());
        for pool in &self.serving.pools {
            let is_ejected = |now| {
                let mut servers = pool.servers.iter();
                servers.any(|server| server.tally.record().ejected_for(now).is_some())
            };
            if is_ejected(Now::read()) {
                self.tell_all(|| Command::Reconsider(pool.id));
            }
        }
        let seats = &self.serving.listeners;
        let is_served = |name: &str| seats.iter().any(|seat| *seat.name == *name);
        for stretch in Stretch::fold(doors.unwanted()) {
            log::info!("no longer listening on {stretch}");
        }
        let (files, last_calls) = doors.settle(is_served);
        self.socket_files.extend(files);
        self.make_last_calls(last_calls);
    }

    /// The kernel is asked for what the new config says, at sockets that may have had another one.
    fn listen_anew(&self, doors: &[Vec<Door>]) {
        let configs = self.serving.config.listeners.iter();
        let owned = configs.zip(&self.serving.listeners).flat_map(|pair| {
            let doors = pair.1.doors.iter();
            doors.map(move |door| (door.id, pair))
        });
        let owners: HashMap<_, _> = owned.collect();
        for door in doors.iter().flatten() {
            let Some((config, seat)) = owners.get(&door.id()) else {
                continue;
            };
            if let Err(error) = door.listen(&config.tcp) {
                log::error!("listener {}: cannot listen as asked: {error}", seat.name);
            }
        }
    }

    /// Each worker opens its doors.
    fn open_doors(&self, doors: Vec<Vec<Door>>) {
        for (worker, open) in self.threads.outboxes.iter().zip(doors) {
            let change = Change {
                open,
                ..Change::default()
            };
            // A worker that has ended is told of by itself.
            let change = Command::Change(Box::new(change));
            worker.send(change).unwrap_or(());
        }
    }

    /// Drains go on at their pace; those begin of servers that the config has no more.
    fn go_on_with_drains(&mut self) {
        let now = Now::read();
        for leaving in &mut self.serving.leaving {
            let server = &mut leaving.server;
            if server.drain.is_none() {
                let left = server.tally.connections();
                let scope = Scope::Server(server.id);
                server.begin(Drain::new(scope, End::Drained, Pace::PATIENT, left, now));
            }
        }
        let seated = self.serving.servers().map(|(_, server)| server);
        let leaving = self.serving.leaving.iter().map(|leaving| &leaving.server);
        for drain in seated.chain(leaving).filter_map(|it| it.drain.as_ref()) {
            self.send_drain(drain);
        }
    }

    /// Lets those in who wait at sockets that nobody uses any more, and closes them.
    fn make_last_calls(&mut self, sockets: LastCalls) {
        if sockets.is_empty() {
            return;
        }
        let mut open = Vec::new();
        for (listener, socket) in sockets {
            let seats = &self.serving.listeners;
            let seat = seats.iter().find(|seat| seat.name == listener);
            if let Some(id) = seat.map(|seat| seat.id) {
                open.push(Door::new(self.serving.number_door(), id, socket));
            }
        }
        let close = open.iter().map(Door::id).collect();
        let change = Change {
            open,
            close,
            ..Change::default()
        };
        if let Some(worker) = self.threads.outboxes.first() {
            // One that has ended is told of by itself.
            let change = Command::Change(Box::new(change));
            worker.send(change).unwrap_or(());
        }
    }

    /// Sockets that were passed to the first process of the line.
    pub(in crate::process) fn inherit_passed(&mut self, passed: Vec<(String, OwnedFd)>) {
        if !passed.is_empty() {
            self.supervision.passed = Passed::new(passed);
        }
    }
}

/// Events as they were told; those of kinds that this version does not know are left out.
fn events(states: &[EventState]) -> Vec<Event> {
    let events = states.iter().filter_map(|state: &EventState| {
        Some(Event {
            number: state.number,
            time: UNIX_EPOCH.checked_add(Duration::from_micros(state.time))?,
            kind: Kind::of_word(&state.kind)?,
            text: state.text.as_str().into(),
        })
    });
    events.collect()
}
