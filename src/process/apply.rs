//! Making a config the one that is served: at the start, by a reload, or by a change of one thing.
//!
//! All that can fail comes first and touches nothing that serves: sockets are bound, new servers are
//! checked, and where clients would else be turned away their first answers are awaited. Then each
//! worker gets one message with its share of the difference, and applies it in one turn.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{after, bounded, never, select};

use super::listen::{self, Bound, Stretch};
use super::serving::{Leaving, Serving};
use super::signals::Asked;
use super::start::Running;
use super::transition::{self, Doors};
use super::{StartError, limits};
use crate::admin::request::{Ask, Request};
use crate::clock::Now;
use crate::config::{Config, Health};
use crate::end::End;
use crate::ids::ServerId;
use crate::pool::drain::{Drain, Pace, Scope};
use crate::prober::{Kit, Step};
use crate::roster::{Origin, Stage};
use crate::telemetry::process_log;
use crate::units::counted;
use crate::worker::{Change, Command, Door};

/// First checks that take longer are worth a line.
const PATIENCE: Duration = Duration::from_secs(1);
/// Beyond their timeout, first answers may be late by the prober's own spreading and shortages.
const ANSWER_GRACE: Duration = Duration::from_secs(3);
/// Workers apply a change within milliseconds; one that is held up must not hold up this thread.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a config that was to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is served.
    Applied,
    /// The process was told to stop first.
    Stopping,
}

impl Running {
    /// Serves `wanted` from now on; connections of servers that it has no place for end at `pace`. To
    /// be published afterwards. What checks need of files stays as it was read last.
    ///
    /// # Errors
    /// Where an address cannot be had or descriptors are too few: nothing has changed then.
    pub(super) fn apply(&mut self, wanted: Config, pace: Pace) -> Result<Outcome, StartError> {
        let known = kits(&self.serving);
        self.apply_with(wanted, pace, known)
    }

    /// The same, with all that checks need of files read anew.
    pub(super) fn apply_anew(&mut self, wanted: Config, pace: Pace) -> Result<Outcome, StartError> {
        self.apply_with(wanted, pace, Vec::new())
    }

    fn apply_with(
        &mut self,
        wanted: Config,
        pace: Pace,
        known: Kits,
    ) -> Result<Outcome, StartError> {
        let max_connections = limits::max_connections(&wanted, &self.room)?;
        let mut next = self.serving.seat(wanted);
        if let Some(heir) = &mut self.heir {
            heir.give(&mut next, Now::read());
        }
        equip(&mut next, known);
        let doors = transition::doors(&self.serving, &next);
        let open = listen::Open {
            passed: &self.supervision.passed,
            inherited: self.heir.as_mut().map(|heir| &mut heir.doors),
        };
        let bound = listen::bind(&doors, &self.serving, &next, open, self.room.workers)?;
        listen::tell_of_absent_sources(&self.serving.config, &next.config);
        next.note_addresses(
            bound
                .iter()
                .map(|bound| (bound.door(), bound.address.clone())),
        );
        self.tell_past();
        self.watch(transition::watched(&self.serving, &next).first);
        let awaited = match self.stage {
            Stage::Starting => transition::unanswered(&next),
            Stage::Serving | Stage::Draining => transition::awaited(&self.serving, &next),
        };
        if !self.await_answers(&awaited, &next) {
            return Ok(Outcome::Stopping);
        }
        next.take_over_drains(&self.serving);
        let open = match self.listen(bound) {
            Ok(open) => open,
            Err(error) => {
                self.take_back(&next);
                return Err(error);
            }
        };
        self.threads.ledger.set_process_max(max_connections);
        self.room.max_connections = max_connections;
        process_log::set_level(next.config.log.level);
        self.name_newcomers(&next);
        let leavers = transition::leavers(&self.serving, &next);
        let open = self.hold_back(open);
        self.commit(next, &doors, open);
        self.name_left();
        self.see_off(&leavers, pace);
        Ok(Outcome::Applied)
    }

    /// `next` comes to nothing.
    fn take_back(&mut self, next: &Serving) {
        let aborted = transition::unwatched(next, &self.serving);
        self.watch(aborted.into_iter().map(Step::Forget).collect());
        self.serving.retire_ids_of(next);
    }

    /// Listens at what is bound: by worker, its doors.
    fn listen(&mut self, bound: Vec<Bound>) -> Result<Vec<Vec<Door>>, StartError> {
        let mut open: Vec<Vec<_>> = self.threads.outboxes.iter().map(|_| Vec::new()).collect();
        let mut files = Vec::new();
        let shown: Vec<_> = bound.iter().filter_map(Bound::shown).collect();
        for address in bound {
            let opened = address.listen()?;
            files.extend(opened.file);
            for (mine, door) in open.iter_mut().zip(opened.doors) {
                mine.push(door);
            }
        }
        self.socket_files.extend(files);
        for stretch in Stretch::fold(shown) {
            log::info!("listening on {stretch}");
        }
        Ok(open)
    }

    /// Puts `next` into effect: nothing can fail any more. `open` has the new doors by worker. To be
    /// published afterwards.
    pub(super) fn commit(&mut self, mut next: Serving, doors: &Doors, mut open: Vec<Vec<Door>>) {
        let listeners = transition::listeners(&self.serving, &next);
        let pools = transition::pools(&self.serving, &next);
        let gone_pools = transition::gone_pools(&self.serving, &next);
        next.note_built(&pools, &gone_pools);
        next.note_gone(&gone_pools, Now::read());
        // Or they would go on to be closed as if they still had to leave.
        self.serving
            .drains_of_returners(&next)
            .for_each(|drain| drain.cancel());
        // From now on nobody comes in there, so that the last call at the doors is the last one.
        for door in &doors.gone {
            drop(self.socket_files.remove(&door.id));
        }
        open.resize_with(self.threads.outboxes.len(), Vec::new);
        self.put_into_effect(open.into_iter().map(|open| Change {
            listeners: listeners.clone(),
            pools: pools.clone(),
            open,
            relabel: doors.relabelled.clone(),
            close: doors.gone.iter().map(|door| door.id).collect(),
            ..Change::default()
        }));
        if !gone_pools.is_empty() {
            // Not before the last door that led there is closed at all workers: whoever accepted at
            // it may have handed connections over.
            self.put_into_effect(self.threads.outboxes.iter().map(|_| Change {
                gone_pools: gone_pools.clone(),
                ..Change::default()
            }));
        }
        let unwatched = transition::unwatched(&self.serving, &next);
        self.watch(unwatched.into_iter().map(Step::Forget).collect());
        self.watch(transition::watched(&self.serving, &next).changed);
        self.tell_of_doors(doors);
        next.reset_unchecked(Now::read());
        self.serving = next;
        self.outlook.rebuild(&self.serving);
    }

    /// Has each worker make its change, and waits until all have.
    fn put_into_effect(&self, changes: impl Iterator<Item = Change>) {
        let (done, in_effect) = bounded(self.threads.outboxes.len());
        for (outbox, change) in self.threads.outboxes.iter().zip(changes) {
            let done = Some(done.clone());
            let change = Change { done, ..change };
            // A worker that has ended is reported through `failed`.
            outbox.send(Command::Change(Box::new(change))).unwrap_or(());
        }
        drop(done);
        let deadline = after(EFFECT_TIMEOUT);
        for _ in &self.threads.outboxes {
            select! {
                recv(in_effect) -> _ => {}
                recv(deadline) -> _ => {
                    log::warn!("a worker takes long to apply a change");
                    return;
                }
            }
        }
    }

    fn tell_of_doors(&self, doors: &Doors) {
        let gone = doors.gone.iter();
        let gone = gone.map(|door| (Arc::default(), door.actual.clone()));
        for stretch in Stretch::fold(gone) {
            log::info!("no longer listening on {stretch}");
        }
    }

    /// Begins to bring the connections of `leavers`, who have just left, to their end. A drain that
    /// is under way goes on, unless another pace was asked for.
    fn see_off(&mut self, leavers: &HashSet<ServerId>, pace: Pace) {
        let now = Now::read();
        let mut begun = Vec::new();
        for Leaving { server, .. } in &mut self.serving.leaving {
            let is_seen_off = server.drain.is_some() && pace == Pace::PATIENT;
            if leavers.contains(&server.id) && !is_seen_off {
                let left = server.tally.connections();
                let drain = Drain::new(Scope::Server(server.id), End::Drained, pace, left, now);
                begun.push(server.begin(drain));
            }
        }
        for drain in begun {
            self.send_drain(&drain);
        }
    }

    /// The access log must know a name before the first connection under it can end.
    fn name_newcomers(&self, next: &Serving) {
        let names = &self.public.names;
        for (config, seat) in next.config.listeners.iter().zip(&next.listeners) {
            names.add_listener(seat.id, seat.name.clone(), next.pool_name(config.pool));
        }
        for pool in &next.pools {
            names.add_pool(pool.id, pool.name.clone());
        }
        let known: HashSet<_> = self
            .serving
            .servers()
            .map(|(_, server)| server.id)
            .collect();
        for (pool, server) in next.servers().filter(|(_, s)| !known.contains(&s.id)) {
            names.add_server(server.id, server.name.clone(), pool.name.clone());
        }
    }

    fn watch(&self, steps: Vec<Step>) {
        if let Some(prober) = self.threads.prober.as_ref().filter(|_| !steps.is_empty()) {
            prober.change(steps);
        }
    }

    /// Waits until each of `awaited` has had its first answer, or its timeout; false where the
    /// process was told to stop meanwhile.
    pub(super) fn await_answers(&mut self, awaited: &[ServerId], next: &Serving) -> bool {
        let mut waiting: HashSet<_> = awaited.iter().copied().collect();
        let timeout = after(next.slowest_answer() + ANSWER_GRACE);
        let hint = after(PATIENCE);
        while !waiting.is_empty() {
            let servers = counted(waiting.len() as u64, "server");
            select! {
                recv(self.inbox.reports) -> report => match report {
                    Ok(report) => {
                        waiting.remove(&report.server);
                        self.note(report);
                    }
                    Err(_) => self.inbox.reports = never(),
                },
                recv(self.inbox.asked) -> asked => {
                    let asked = asked.unwrap_or(Asked::Stop);
                    self.postponed.push_back(asked);
                    if asked.stops() {
                        return false;
                    }
                }
                recv(self.inbox.requests) -> request => match request {
                    Ok(request) => self.answer_meanwhile(request),
                    Err(_) => self.inbox.requests = never(),
                },
                recv(self.supervision.looks) -> _ => self.feed_watchdog(),
                recv(hint) -> _ => log::info!("waiting for the first check of {servers}"),
                recv(timeout) -> _ => {
                    log::warn!("{servers} not checked yet");
                    return true;
                }
            }
        }
        true
    }

    /// One may look at connections, kill them, leave and join while a change awaits health checks, which
    /// may take as long as their timeout says; another change has to wait for it.
    pub(super) fn answer_meanwhile(&mut self, request: Request) {
        match request.ask {
            Ask::Connections(_) | Ask::Kill(_) | Ask::Leave(_) => self.answer(request),
            _ => self.put_off.push_back(request),
        }
    }

    /// Shows others what is served now.
    pub(super) fn publish(&mut self) {
        self.is_unpublished = false;
        self.survival.note_change();
        let origin = Origin {
            file: self.loaded.file.clone(),
            // At the start there is only less of it, for a moment.
            differences: match self.stage {
                Stage::Starting => Vec::new(),
                Stage::Serving | Stage::Draining => self.differences_from_file(),
            },
            confirm_until: self.pending.as_ref().map(|pending| pending.until),
        };
        let mut roster = self.serving.roster(self.stage, origin);
        roster.has_left = self.has_left;
        self.discovery.show(&self.serving.config, &mut roster);
        self.public.board.publish(roster);
        // Connections to servers that are new are parked soon, and nobody could tell whose they are.
        self.keep_shelf_if_kept();
    }
}

/// What was read, and one of the checks that need it.
type Kits = Vec<(Arc<Health>, Arc<Kit>)>;

/// What the checks of `serving` have of files.
fn kits(serving: &Serving) -> Kits {
    let mut kits = Kits::new();
    for (config, seat) in serving.config.pools.iter().zip(&serving.pools) {
        let health = config.health.as_ref().filter(|it| Kit::is_needed(it));
        let Some(health) = health.filter(|health| find(&kits, health).is_none()) else {
            continue;
        };
        kits.push((Arc::clone(health), Arc::clone(&seat.kit)));
    }
    kits
}

fn find(kits: &Kits, health: &Health) -> Option<Arc<Kit>> {
    let known = kits.iter().find(|(other, _)| Kit::is_shared(other, health));
    known.map(|(_, kit)| Arc::clone(kit))
}

/// Gives the checks of `next` what they need of files: what is in `known`, the rest is read. What a
/// pool had is kept where it is the same, so that checks under way go on. Pools that name the same
/// files share what was read.
fn equip(next: &mut Serving, mut known: Kits) {
    // Whoever has all read anew wants to hear of all that is wrong.
    let is_anew = known.is_empty();
    let pools = next.config.pools.iter().zip(&mut next.pools);
    for (config, seat) in pools {
        let Some(health) = &config.health else {
            continue;
        };
        if !Kit::is_needed(health) {
            seat.kit = Arc::default();
            continue;
        }
        let kit = find(&known, health).unwrap_or_else(|| {
            let kit = Arc::new(Kit::read(health));
            known.push((Arc::clone(health), Arc::clone(&kit)));
            kit
        });
        let is_same = *seat.kit == *kit;
        let obstacle = kit.obstacle().filter(|_| is_anew || !is_same);
        if let Some(obstacle) = obstacle {
            log::warn!("pool {} cannot be checked: {obstacle}", seat.name);
        }
        if !is_same {
            seat.kit = kit;
        }
    }
}
