//! Where something listens: no two things can have one address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path as FilePath;

use super::super::AdminSocket;
use super::super::file::File;
use super::super::mistake::{Mistakes, Place, Wrong};
use super::super::tree::Path;
use crate::address::{Address, UnixName};

/// Two sockets cannot have one address, nor one the wildcard of its family and the other the same
/// port. `[::]` leaves IPv4 alone, because the sockets are made with IPV6_V6ONLY.
pub(super) fn check_addresses(file: &File, mistakes: &mut Mistakes) {
    let mut bound = Bound::default();
    if let Some(AdminSocket::At(path)) = &file.admin.socket {
        bound.admin = Some(path);
    }
    for listener in &file.listeners {
        let path = Path::Key(&Path::Root, "listeners");
        let path = Path::Key(&path, &listener.name.text);
        let path = Path::Key(&path, "bind");
        for (index, bind) in listener.bind.iter().enumerate() {
            let Some(bind) = bind else { continue };
            let wrong = bound.add(bind.value.addresses(), bind.place);
            let item = Path::Item(&path, index);
            let path = if listener.bind.len() > 1 {
                &item
            } else {
                &path
            };
            if let Some(wrong) = wrong {
                mistakes.add(bind.place, path, wrong);
            }
        }
    }
    let Some((place, http)) = file
        .admin
        .http
        .and_then(|http| Some((http.place, http.value?)))
    else {
        return;
    };
    if let Some(wrong) = bound.add([Address::Ip(http)], place) {
        let path = Path::Key(&Path::Root, "admin");
        mistakes.add(place, &Path::Key(&path, "http"), wrong);
    }
}

/// Addresses that have been seen.
#[derive(Debug, Default)]
struct Bound<'f> {
    /// By family and port.
    ips: HashMap<(bool, u16), Vec<(IpAddr, Place)>>,
    unix: HashMap<UnixName, Place>,
    /// The admin socket's file, where one is written.
    admin: Option<&'f FilePath>,
}

impl Bound<'_> {
    /// What is wrong with the first of the addresses that is taken: a range may have thousands.
    fn add(&mut self, addresses: impl IntoIterator<Item = Address>, at: Place) -> Option<Wrong> {
        let mut wrong = None;
        for address in addresses {
            let taken = match address {
                Address::Ip(ip) => self.add_ip(ip, at),
                Address::Unix(name) => self.add_unix(name, at),
            };
            wrong = wrong.or(taken);
        }
        wrong
    }

    fn add_ip(&mut self, address: SocketAddr, at: Place) -> Option<Wrong> {
        let (ip, port) = (address.ip(), address.port());
        // The kernel gives each a port of its own.
        if port == 0 {
            return None;
        }
        let others = self.ips.entry((ip.is_ipv4(), port)).or_default();
        let clash = others
            .iter()
            .find(|(other, _)| *other == ip || other.is_unspecified() || ip.is_unspecified());
        let wrong = clash.map(|(other, place)| {
            let other = SocketAddr::new(*other, port);
            let what = format!("{address} is taken by {other} in {}", place.mention(at));
            Wrong::new(what, "write another address or port")
        });
        others.push((ip, at));
        wrong
    }

    fn add_unix(&mut self, name: UnixName, at: Place) -> Option<Wrong> {
        const REMEDY: &str = "write another path or name";
        if name.path().is_some_and(|path| Some(path) == self.admin) {
            let what = format!("{} is admin.socket", Address::Unix(name));
            return Some(Wrong::new(what, REMEDY));
        }
        let first = self.unix.insert(name.clone(), at)?;
        let mention = first.mention(at);
        let what = format!("{} is in {mention} already", Address::Unix(name));
        Some(Wrong::new(what, REMEDY))
    }
}
