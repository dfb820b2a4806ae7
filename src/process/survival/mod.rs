//! Connections that go on though the process is killed (`survive_restart`): where this one parks its own,
//! and how it takes up those of one that was killed.
//!
//! A shelf is made before the workers, is kept by the store once the process serves, and is told who is
//! who whenever that has changed, with the next look. What was left is taken up as from a living
//! process (`heritage`), only that nobody is there to be asked: what was counted begins anew.

mod place;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use self::place::{Place, taken};
use super::apply::Outcome;
use super::heritage::{Heritage, IntakeError};
use super::start::Running;
use super::{StartError, SuccessionError};
use crate::clock::Now;
use crate::config::Config;
use crate::handover::Connections;
use crate::handover::world::{Counts, KeptState, ListenerCounts, ServerCounts};
use crate::park::{KeptBy, Parked, Parking, SOCKET_NAME, Shelf, Store, is_ours, keeper_room};
use crate::sys::limits::descriptors_of;
use crate::telemetry::events::Kind;
use crate::units::counted;
use crate::worker::Command;

/// How long a process that was killed may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(5);
/// Ids that may have been given to connections that were never parked.
const IDS_SKIPPED: u64 = 1_000_000;
/// A store that is lost is looked for so often: it may be one that cannot live.
const SEARCH: Duration = Duration::from_secs(1);

/// What a process has of it; nothing where it is not wanted.
#[derive(Debug, Default)]
pub(super) struct Survival {
    pub(super) parking: Option<Parking>,
    /// Where the store is.
    place: Option<Place>,
    /// What is started where a keeper is needed. Found at the start: a file that is replaced later is no
    /// way to it.
    program: PathBuf,
    /// What was found, until it is taken up.
    parked: Option<Box<Parked>>,
    /// Shelves of processes before this one, to be dropped.
    former: Vec<String>,
    /// Something of a process before this one lies there, and is to be dropped: nothing is parked any
    /// more, or elsewhere.
    abandoned: Option<Store>,
    /// The store has ours.
    is_kept: bool,
    /// Who is who has changed.
    is_stale: bool,
    /// Those that were started here, to be waited for when they end: one but for a moment.
    keepers: Vec<Child>,
    /// When a lost store was looked for last.
    searched: Option<Now>,
}

impl Survival {
    /// Prepares what the config asks for. `passed` loses what was parked; `is_alone` unless another
    /// process still serves the connections.
    pub(super) fn prepare(
        config: &Config,
        passed: &mut Vec<(String, OwnedFd)>,
        (workers, is_alone): (usize, bool),
    ) -> Self {
        let mut found: Vec<_> = passed.extract_if(.., |(name, _)| is_ours(name)).collect();
        let mut survival = Self {
            place: Place::find(&config.admin.socket),
            program: std::env::current_exe().unwrap_or_default(),
            ..Self::default()
        };
        let store = match config.survive_restart {
            true => survival.open(),
            // What a process has left that was started otherwise is taken up, and not kept any more.
            false if is_alone => survival.place.as_ref().and_then(|it| it.join().ok()),
            false => None,
        };
        if let Some(store) = &store
            && is_alone
            && store.kept_by() == KeptBy::Keeper
        {
            found = taken(store);
        }
        if is_alone && !found.is_empty() {
            let parked = Parked::read(found, Now::read());
            survival.former.clone_from(&parked.shelves);
            survival.parked = Some(Box::new(parked));
        }
        match config.survive_restart {
            true => survival.parking = store.and_then(|store| parking(store, workers)),
            false => survival.abandoned = store.filter(|_| survival.parked.is_some()),
        }
        survival
    }

    /// The process before this one, which hands over, has kept something there.
    pub(super) fn follow(&mut self, before: KeptState) {
        if before.shelves.is_empty() {
            return;
        }
        self.former = before.shelves;
        let place = match before.keeper {
            Some(path) => Place::Keeper(path),
            None => match &self.place {
                Some(Place::Systemd(address)) => Place::Systemd(address.clone()),
                _ => return,
            },
        };
        if self.parking.is_none() || self.place.as_ref() != Some(&place) {
            // One that is gone has nothing to be dropped.
            self.abandoned = place.join().ok();
        }
    }

    /// What a successor has to know.
    pub(super) fn state(&self) -> KeptState {
        let Some(parking) = &self.parking else {
            return KeptState::default();
        };
        let mut shelves = self.former.clone();
        shelves.push(parking.shelf.name());
        KeptState {
            keeper: self.place.as_ref().and_then(|it| Some(it.keeper()?.into())),
            shelves,
        }
    }

    /// Who is who is different from what the shelf says.
    pub(super) fn note_change(&mut self) {
        self.is_stale = true;
    }

    fn open(&mut self) -> Option<Store> {
        let opened = match &self.place {
            Some(place) => place.open(&self.program),
            None => Err(io::Error::other(
                "without admin.socket there is no place for the keeper",
            )),
        };
        let opened = opened
            .map_err(|error| log::warn!("survive_restart: connections are not kept: {error}"));
        let (store, keeper) = opened.ok()?;
        if let Some(path) = self.place.as_ref().and_then(Place::keeper) {
            tell_keeper(&store, path, keeper.is_some());
        }
        self.keepers.extend(keeper);
        Some(store)
    }

    /// Another store where the one that there was is lost, as far as it is time to look for one.
    fn replace_lost(&mut self, now: Now) -> Option<Arc<Store>> {
        let is_due = self.searched.is_none_or(|last| now.since(last) >= SEARCH);
        if !is_due || !self.parking.as_ref()?.store.is_lost() {
            return None;
        }
        let is_first = self.searched.replace(now).is_none();
        if is_first {
            log::warn!("survive_restart: who keeps connections is gone; they are parked anew");
        }
        self.keepers
            .retain_mut(|keeper| matches!(keeper.try_wait(), Ok(None)));
        let before = self.keepers.len();
        let store = Arc::new(self.open()?);
        let lost = std::mem::replace(&mut self.parking.as_mut()?.store, Arc::clone(&store));
        if self.keepers.len() > before {
            // Should the other one be there after all, it must not reset what it has, later.
            lost.end(&[]).unwrap_or(());
        }
        self.is_kept = false;
        Some(store)
    }

    /// Has whoever keeps something for nobody drop it; tried again with the next look.
    fn abandon(&mut self) {
        let Some(store) = &self.abandoned else {
            return;
        };
        let mut names: Vec<_> = self.former.iter().map(String::as_str).collect();
        names.insert(0, SOCKET_NAME);
        match store.end(&names) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // One that is gone keeps nothing.
            _ => {
                self.abandoned = None;
                self.former.clear();
            }
        }
    }
}

/// Who keeps connections from now on, and how many.
fn tell_keeper(store: &Store, path: &Path, is_new: bool) {
    let how = if is_new { "started" } else { "taken over" };
    let Some(process) = store.process() else {
        return log::info!("keeper {how}: {}", path.display());
    };
    let text = format!("keeper {how}: process {process} at {}", path.display());
    match descriptors_of(process) {
        Ok(limit) => {
            let most = counted(keeper_room(limit).into(), "connection");
            log::info!("{text}, for at most {most}");
        }
        // It may have another user; then nobody here knows.
        Err(_) => log::info!("{text}"),
    }
}

fn parking(store: Store, workers: usize) -> Option<Parking> {
    let is_systemd = store.kept_by() == KeptBy::Systemd;
    // The clock goes on from process to process, so that a later shelf has a higher number.
    let shelf = Shelf::new(Now::read().as_nanoseconds(), is_systemd);
    let shelf = shelf.map_err(|error| log::warn!("survive_restart: {error}"));
    Some(Parking {
        shelf: Arc::new(shelf.ok()?),
        store: Arc::new(store),
        workers,
    })
}

impl Running {
    /// Begins with `config`, and with the connections of a process that was killed, if there are any.
    pub(super) fn begin_or_take_up(&mut self, config: &Config) -> Result<Outcome, StartError> {
        let parked = self.survival.parked.take();
        let Some(parked) = parked.filter(|parked| !parked.connections.is_empty()) else {
            return self.begin(config);
        };
        let (reset, connections) = (parked.reset as u64, parked.connections.len() as u64);
        let outcome = self.take_up_parked(*parked, config)?;
        if outcome == Outcome::Applied {
            let connections = counted(connections, "connection");
            let text = format!("took up {connections} of a process that was killed, reset {reset}");
            self.tell(Kind::Upgraded, text);
        }
        Ok(outcome)
    }

    fn take_up_parked(&mut self, parked: Parked, config: &Config) -> Result<Outcome, StartError> {
        let counts = counts(&parked);
        let Heritage { heir, .. } = Heritage::new(parked.world, Vec::new());
        let outcome = self.prepare(heir, config)?;
        if outcome == Outcome::Stopping {
            // Nobody will ever say more on them.
            parked.connections.iter().for_each(Parked::reset_pair);
            return Ok(outcome);
        }
        self.hold_workers().map_err(SuccessionError::from)?;
        self.add_counts(&counts);
        let taken = self.take_in_parked(parked.connections);
        taken.map_err(SuccessionError::from)?;
        self.take_up();
        Ok(outcome)
    }

    fn take_in_parked(
        &self,
        parked: Vec<(crate::handover::ConnectionState, Vec<OwnedFd>)>,
    ) -> Result<(), IntakeError> {
        let Some(heir) = &self.heir else {
            return Ok(());
        };
        let announced = parked.len() as u64;
        let mut intake = heir.intake()?;
        for (state, descriptors) in parked {
            let one = Connections {
                connections: vec![state],
            };
            intake.take(one, descriptors)?;
        }
        intake.finish(announced).map(drop)
    }

    /// The process serves: from now on its shelf counts, and no other.
    pub(super) fn begin_to_park(&mut self) {
        self.survival.is_stale = true;
        self.keep_shelf();
    }

    /// Brings the shelf up to date, and to the store if that has had no room before.
    pub(super) fn keep_shelf(&mut self) {
        self.survival.abandon();
        let Some(Parking { shelf, store, .. }) = self.survival.parking.clone() else {
            return;
        };
        if std::mem::take(&mut self.survival.is_stale)
            && let Err(error) = shelf.tell(&self.world())
        {
            log::warn!("survive_restart: what serves now is not noted: {error}");
        }
        if self.survival.is_kept {
            return;
        }
        shelf.complete();
        // A full queue is tried again with the next look.
        if store.keep(&shelf.name(), &[shelf.as_fd()]).is_ok() {
            self.survival.is_kept = true;
            // Those of another store are dropped with all that it has.
            for name in std::mem::take(&mut self.survival.former) {
                store.forget(&name).unwrap_or(());
            }
        }
    }

    /// Brings the shelf up to date, once the process serves.
    pub(super) fn keep_shelf_if_kept(&mut self) {
        if self.survival.is_kept {
            self.keep_shelf();
        }
    }

    /// Has connections be kept by another store where the one that there was is gone.
    pub(super) fn look_after_store(&mut self) {
        if let Some(store) = self.survival.replace_lost(Now::read()) {
            self.keep_shelf();
            self.tell_all(|| Command::ParkAt(Arc::clone(&store)));
        }
    }

    /// Every connection has ended: nothing is to be kept.
    pub(super) fn end_parking(&mut self) {
        self.survival.abandon();
        let Survival {
            parking, former, ..
        } = &mut self.survival;
        if let Some(Parking { shelf, store, .. }) = parking.take() {
            let own = shelf.name();
            let mut names = vec![SOCKET_NAME, &own];
            names.extend(former.iter().map(String::as_str));
            // A store that is gone keeps nothing.
            store.end(&names).unwrap_or(());
        }
    }
}

/// So that as many are open as there are; all else is lost with the process.
fn counts(parked: &Parked) -> Counts {
    let mut counts = Counts::default();
    let open = parked.connections.len() as u64;
    let last = parked.connections.iter().map(|(state, _)| state.id).max();
    let last = last.unwrap_or(0) + IDS_SKIPPED;
    counts.process.insert("accepted".to_owned(), open);
    counts.process.insert("last_connection".to_owned(), last);
    for (state, _) in &parked.connections {
        let listener = counts.listeners.entry(state.listener);
        listener.or_insert_with(ListenerCounts::default).accepted += 1;
        if let Some(server) = state.server {
            let server = counts.servers.entry(server);
            server.or_insert_with(ServerCounts::default).connected += 1;
        }
    }
    counts
}
