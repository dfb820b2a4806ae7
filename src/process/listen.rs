//! Listening sockets: bound before anything else changes, so that a wrong address changes nothing, and
//! listening only when the first health checks are answered.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::StartError;
use super::binding::{self, Binding, Sockets};
use super::heritage::InheritedDoors;
use super::serving::{DoorSeat, Serving};
use super::transition::Doors;
use crate::address::Address;
use crate::bind;
use crate::bind::unix::{Obstacle, SocketFile};
use crate::config::{Config, Tcp};
use crate::ids::ListenerId;
use crate::sys;
use crate::systemd::Passed;
use crate::worker::{Door, DoorId, tuning};

/// One address of a listener, bound for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    door: DoorId,
    listener: ListenerId,
    name: Arc<str>,
    /// As the kernel has it: port 0 has become a real one.
    pub(super) address: Address,
    tcp: Tcp,
    /// Goes before the sockets do.
    file: Option<SocketFile>,
    /// One for each worker; none where the machine lacks the address's family.
    sockets: Sockets,
    /// Another process listens there: nothing may be asked of the kernel yet.
    is_inherited: bool,
}

/// Sockets that are open already.
#[derive(Debug)]
pub(super) struct Open<'a> {
    /// By whoever has started the process.
    pub(super) passed: &'a Passed,
    /// By the process before this one.
    pub(super) inherited: Option<&'a mut InheritedDoors>,
}

impl Open<'_> {
    /// The sockets at an address of a listener, where they are; whether they are inherited.
    fn find(
        &mut self,
        door: &DoorSeat,
        listener: &Arc<str>,
        workers: usize,
    ) -> Option<Result<(Binding, bool), Obstacle>> {
        if let Some(inherited) = &mut self.inherited
            && let Some(known) = inherited.take(door.id, listener, &door.written)
        {
            let bound = binding::of_inherited(known.is_shared, known.sockets, workers);
            return Some(bound.map(|(binding, surplus)| {
                inherited.note_surplus(door.id, surplus);
                (binding, true)
            }));
        }
        let passed = self.passed.find(listener, &door.written)?;
        let binding = binding::of_passed(passed, workers);
        Some(binding.map(|binding| (binding, false)))
    }
}

/// What is open at one address.
#[derive(Debug)]
pub(super) struct Opened {
    /// One for each worker.
    pub(super) doors: Vec<Door>,
    /// To be dropped before the doors are closed.
    pub(super) file: Option<(DoorId, SocketFile)>,
}

impl Bound {
    /// Its listener's name and where it is; `None` where nothing is bound that was not before.
    pub(super) fn shown(&self) -> Option<(Arc<str>, Address)> {
        let is_bound = !self.sockets.is_empty() && !self.is_inherited;
        is_bound.then(|| (Arc::clone(&self.name), self.address.clone()))
    }

    /// Which door it is.
    pub(super) fn door(&self) -> DoorId {
        self.door
    }

    /// Starts to listen at all sockets, one door for each worker.
    pub(super) fn listen(self) -> Result<Opened, StartError> {
        let failed = |source: io::Error, hint: &str| StartError::Bind {
            listener: self.name.to_string(),
            address: self.address.clone(),
            source,
            hint: hint.to_owned(),
        };
        if self.file.as_ref().is_some_and(|file| !file.is_ours()) {
            // Before anybody listens, a socket looks as if its owner had died.
            let source = io::ErrorKind::AddrInUse.into();
            return Err(failed(source, "another program has just taken it over"));
        }
        for socket in self.sockets.iter().filter(|_| !self.is_inherited) {
            tuning::listen(socket, &self.tcp)
                .map_err(|source| failed(source, "the options of `tcp` may be wrong here"))?;
        }
        let doors = self.sockets.doors(self.door, self.listener);
        let file = self.file.map(|file| (self.door, file));
        Ok(Opened { doors, file })
    }
}

/// Binds the new doors of `next`, each for every worker, but for those that are `open`.
pub(super) fn bind(
    doors: &Doors,
    before: &Serving,
    next: &Serving,
    mut open: Open<'_>,
    workers: usize,
) -> Result<Vec<Bound>, StartError> {
    // Our own sockets of the same port are no strangers: 0.0.0.0:80 may become 127.0.0.1:80.
    let mut ours: HashSet<u16> = before
        .doors()
        .iter()
        .filter_map(|(_, door)| Some(door.actual.ip()?.port()))
        .collect();
    if let Some(inherited) = &open.inherited {
        ours.extend(inherited.ports());
    }
    let bind = |(id, door): &(ListenerId, DoorSeat)| {
        let mut listeners = next.config.listeners.iter().zip(&next.listeners);
        let (config, seat) = listeners
            .find(|(_, seat)| seat.id == *id)
            .expect("a door belongs to a listener");
        let is_ours = |port| ours.contains(&port);
        let found = open.find(door, &seat.name, workers);
        let anew = || binding::of(&door.written, is_ours, workers).map(|binding| (binding, false));
        let binding = match found.unwrap_or_else(anew) {
            Err(obstacle) if is_half_of_both(&door.written, &config.bind, &obstacle.source) => {
                log::info!("no IPv6 on this machine: not listening on {}", door.written);
                Ok((Binding::nothing(), false))
            }
            binding => binding,
        };
        match binding {
            Ok((binding, is_inherited)) => Ok(Bound {
                door: door.id,
                listener: *id,
                name: Arc::clone(&seat.name),
                address: binding.address.unwrap_or_else(|| door.written.clone()),
                tcp: config.tcp.clone(),
                file: binding.file,
                sockets: binding.sockets,
                is_inherited,
            }),
            Err(Obstacle { source, hint }) => Err(StartError::Bind {
                listener: seat.name.to_string(),
                address: door.written.clone(),
                hint,
                source,
            }),
        }
    };
    doors.new.iter().map(bind).collect()
}

/// Addresses that follow each other port by port, as one line shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Empty where it does not matter.
    listener: Arc<str>,
    first: Address,
    ports: u16,
}

impl Stretch {
    /// Folds a listener's addresses, in the order of its config: a range may have thousands of ports.
    pub(super) fn fold(addresses: impl IntoIterator<Item = (Arc<str>, Address)>) -> Vec<Self> {
        let mut stretches: Vec<Self> = Vec::new();
        for (listener, address) in addresses {
            match stretches.last_mut() {
                Some(last) if last.is_before(&listener, &address) => last.ports += 1,
                _ => stretches.push(Self {
                    listener,
                    first: address,
                    ports: 1,
                }),
            }
        }
        stretches
    }

    /// Whether that address of that listener comes next.
    fn is_before(&self, listener: &str, address: &Address) -> bool {
        let (Some(first), Some(next)) = (self.first.ip(), address.ip()) else {
            return false;
        };
        let port = first.port().checked_add(self.ports);
        &*self.listener == listener && first.ip() == next.ip() && port == Some(next.port())
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        let mut notes = Vec::new();
        if !self.listener.is_empty() {
            notes.push(format!("listener {}", self.listener));
        }
        if let (ports @ 2.., Some(first)) = (self.ports, self.first.ip()) {
            write!(f, "-{}", first.port() + (ports - 1))?;
            notes.push(format!("{ports} ports"));
        }
        match notes.as_slice() {
            [] => Ok(()),
            notes => write!(f, " ({})", notes.join(", ")),
        }
    }
}

/// Tells of new addresses to go out from that this machine does not have. It may get them later, such
/// as one that moves between machines: until then the others are used.
pub(super) fn tell_of_absent_sources(before: &Config, next: &Config) {
    for pool in &next.pools {
        let known = before.pools.iter().find(|known| known.name == pool.name);
        let is_new = |source: &&IpAddr| known.is_none_or(|known| !known.source.contains(source));
        for source in pool.source.iter().filter(is_new) {
            let address = SocketAddr::new(*source, 0);
            if let Err(error) = bind::tcp(address, false) {
                let hint = bind::hint(&error, &address.into());
                log::warn!("pool {}: source {source}: {error}: {hint}", pool.name);
            }
        }
    }
}

/// `*:80` stands for both families, and is served by IPv4 alone where there is no IPv6.
fn is_half_of_both(address: &Address, all: &[Address], error: &io::Error) -> bool {
    let Some(SocketAddr::V6(six)) = address.ip() else {
        return false;
    };
    let four = SocketAddr::from(([0, 0, 0, 0], six.port()));
    six.ip().is_unspecified() && all.contains(&four.into()) && sys::socket::is_family_unknown(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_line() {
        let lines = |addresses: &[(&str, &str)]| -> Vec<String> {
            let addresses = addresses.iter().map(|(listener, address)| {
                let address = Address::from(address.parse::<SocketAddr>().unwrap());
                (Arc::from(*listener), address)
            });
            let folded = Stretch::fold(addresses);
            folded.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            lines(&[
                ("web", "127.0.0.1:7000"),
                ("web", "127.0.0.1:7001"),
                ("web", "127.0.0.1:7002"),
                ("web", "127.0.0.1:7004"),
                ("web", "127.0.0.2:7005"),
                ("api", "127.0.0.2:7006"),
                ("api", "[::1]:65534"),
                ("api", "[::1]:65535"),
                ("", "127.0.0.1:80"),
            ]),
            [
                "127.0.0.1:7000-7002 (listener web, 3 ports)",
                "127.0.0.1:7004 (listener web)",
                "127.0.0.2:7005 (listener web)",
                "127.0.0.2:7006 (listener api)",
                "[::1]:65534-65535 (listener api, 2 ports)",
                "127.0.0.1:80",
            ]
        );
    }
}
