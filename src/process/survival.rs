//! Connections that go on though the process is killed (`survive_restart`): where this one parks its own,
//! and how it takes up those of one that was killed.
//!
//! A shelf is made before the workers, is kept by the store once the process serves, and is told who is
//! who whenever that has changed, with the next look. What was left is taken up as from a living
//! process (`heritage`), only that nobody is there to be asked: what was counted begins anew.

use std::env;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use super::apply::Outcome;
use super::heritage::{Heritage, IntakeError};
use super::start::Running;
use super::{StartError, SuccessionError};
use crate::admin::DEFAULT_SOCKET;
use crate::clock::Now;
use crate::config::{AdminSocket, Config};
use crate::handover::Connections;
use crate::handover::world::{Counts, ListenerCounts, ServerCounts};
use crate::park::{Parked, Parking, SOCKET_NAME, Shelf, Store, TakeError, is_ours};
use crate::telemetry::events::Kind;
use crate::units::counted;

/// How long a process that was killed may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(5);
/// Ids that may have been given to connections that were never parked.
const IDS_SKIPPED: u64 = 1_000_000;

/// What a process has of it; nothing where it is not wanted.
#[derive(Debug, Default)]
pub(super) struct Survival {
    pub(super) parking: Option<Parking>,
    /// What was found, until it is taken up.
    parked: Option<Box<Parked>>,
    /// Shelves of processes before this one, to be dropped.
    former: Vec<String>,
    /// The store has ours.
    is_kept: bool,
    /// Who is who has changed.
    is_stale: bool,
    /// Ours, to be waited for when it ends; another process's would not be.
    _keeper: Option<Child>,
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
        let (store, keeper) = match store(config) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("survive_restart: connections are not kept: {error}");
                (None, None)
            }
        };
        let mut survival = Self {
            _keeper: keeper,
            ..Self::default()
        };
        if let Some(store) = &store
            && is_alone
            && found.is_empty()
        {
            found = taken(store);
        }
        if is_alone && !found.is_empty() {
            let parked = Parked::read(found, Now::read());
            survival.former.clone_from(&parked.shelves);
            survival.parked = Some(Box::new(parked));
        }
        survival.parking = store.and_then(|store| parking(store, workers));
        survival
    }

    /// Who is who is different from what the shelf says.
    pub(super) fn note_change(&mut self) {
        self.is_stale = true;
    }
}

/// Where to park, and the keeper if it was started for this.
fn store(config: &Config) -> std::io::Result<(Option<Store>, Option<Child>)> {
    if !config.survive_restart {
        return Ok((None, None));
    }
    if let Some(address) = env::var_os("NOTIFY_SOCKET") {
        return Ok((Some(Store::systemd(&address)?), None));
    }
    let Some(path) = keeper_path(&config.admin.socket) else {
        let text = "without admin.socket there is no place for the keeper";
        return Err(std::io::Error::other(text));
    };
    if let Ok(store) = Store::keeper(&path) {
        return Ok((Some(store), None));
    }
    let (store, child) = Store::start_keeper(&env::current_exe()?, &path)?;
    Ok((Some(store), Some(child)))
}

fn keeper_path(admin: &AdminSocket) -> Option<PathBuf> {
    let path = match admin {
        AdminSocket::Off => return None,
        AdminSocket::Default => Path::new(DEFAULT_SOCKET),
        AdminSocket::At(path) => path,
    };
    let mut path = std::path::absolute(path).ok()?.into_os_string();
    path.push(".keeper");
    Some(path.into())
}

/// What a keeper has; nothing of systemd, which has passed all at the start.
fn taken(store: &Store) -> Vec<(String, OwnedFd)> {
    let begun = Now::read();
    loop {
        match store.take() {
            Ok(found) => return found,
            // It has not heard yet that the other one is gone.
            Err(TakeError::Busy) if Now::read().since(begun) < GONE_MAX => std::thread::yield_now(),
            Err(error) => {
                log::warn!("survive_restart: what was kept is not given back: {error}");
                return Vec::new();
            }
        }
    }
}

fn parking(store: Store, workers: usize) -> Option<Parking> {
    let is_systemd = store.kept_by() == crate::park::KeptBy::Systemd;
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
        // A full queue is tried again with the next look; one that is gone is told by the workers.
        if store.keep(&shelf.name(), &[shelf.as_fd()]).is_ok() {
            self.survival.is_kept = true;
            for name in std::mem::take(&mut self.survival.former) {
                store.forget(&name).unwrap_or(());
            }
        }
    }

    /// Every connection has ended: nothing is to be kept.
    pub(super) fn end_parking(&mut self) {
        if let Some(Parking { shelf, store, .. }) = self.survival.parking.take() {
            // A store that is gone keeps nothing.
            store.end(&[SOCKET_NAME, &shelf.name()]).unwrap_or(());
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
