//! A pool's servers and the templates for those that are still to be found: their names and defaults,
//! and what is wrong among them.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::file;
use super::super::mistake::{Mistakes, Place, Wrong, quoted};
use super::super::target::Target;
use super::super::tree::{Located, Path};
use super::super::words::NAME_BYTES_MAX;
use super::super::{Question, Server, Template};
use crate::address::Address;

/// What is put behind the name of a template: a dash and the longest of all addresses.
const ADDRESS_BYTES_MAX: usize = "-[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".len();

/// The same for a server of several ports.
const PORT_BYTES_MAX: usize = "-65535".len();

/// Names, addresses and questions are there once, and one server at least can take a connection.
pub(super) fn check_servers(pool: &file::Pool, path: &Path<'_>, mistakes: &mut Mistakes) {
    let path = Path::Key(path, "servers");
    let mut seen = Seen::default();
    for (index, server) in pool.servers.iter().enumerate() {
        let Some(server) = server else { continue };
        if let Some((place, wrong)) = seen.wrong(server) {
            mistakes.add(place, &Path::Item(&path, index), wrong);
        }
    }
    let is_idle = |server: &Option<file::Server>| match server {
        Some(server) => server.weight == Some(0) && server.address.value.question().is_none(),
        // What could not be read may well have a weight.
        None => false,
    };
    let is_file = pool.servers_file.is_some();
    if !is_file && !pool.servers.is_empty() && pool.servers.iter().all(is_idle) {
        let wrong = Wrong::new(
            "every server has weight 0",
            "write a weight from 1 to 256 for one",
        );
        mistakes.add(pool.name.place, &path, wrong);
    }
}

/// What the items before this one were.
#[derive(Debug, Default)]
pub(in crate::config) struct Seen<'f> {
    addresses: HashMap<Address, Place>,
    questions: HashMap<&'f Question, Place>,
    names: HashMap<Arc<str>, Place>,
}

impl<'f> Seen<'f> {
    /// The first thing that is wrong with the next item, and where.
    pub(in crate::config) fn wrong(&mut self, server: &'f file::Server) -> Option<(Place, Wrong)> {
        let place = server.address.place;
        if let Some(question) = server.address.value.question()
            && let Some(first) = self.questions.insert(question, place)
        {
            return Some((place, twice(question, first.mention(place))));
        }
        for address in server.address.value.addresses() {
            let shown = address.to_string();
            if let Some(first) = self.addresses.insert(address, place) {
                return Some((place, twice(shown, first.mention(place))));
            }
        }
        let name_place = server.name.as_ref().map_or(place, |name| name.place);
        if let Some(wrong) = server.name.as_ref().and_then(|name| too_long(name, server)) {
            return Some((name_place, wrong));
        }
        let clash = names(server).find_map(|name| {
            let first = self.names.insert(Arc::clone(&name), name_place)?;
            Some((name, first))
        });
        let (name, first) = clash?;
        let mention = first.mention(name_place);
        let what = format!("{} is a server's name in {mention} already", quoted(&name));
        Some((name_place, Wrong::new(what, "write another name")))
    }
}

fn twice(what: impl std::fmt::Display, mention: String) -> Wrong {
    let what = format!("{what} is a server in {mention} already");
    Wrong::new(what, "remove one of the two")
}

/// A name with something behind it is a server's name all the same.
fn too_long(name: &Located<String>, server: &file::Server) -> Option<Wrong> {
    let (behind, most) = match server.address.value {
        Target::Address(_) => return None,
        Target::Ports(..) => ("a port", NAME_BYTES_MAX - PORT_BYTES_MAX),
        Target::Question(_) => ("an address", NAME_BYTES_MAX - ADDRESS_BYTES_MAX),
    };
    (name.value.len() > most).then(|| {
        let what = format!("the name has {} bytes", name.value.len());
        let remedy = format!("write at most {most}, {behind} goes behind it");
        Wrong::new(what, remedy)
    })
}

/// The names that logs and commands use. A template's own is among them: no server is called so, but
/// two templates of one name could bring servers of one name.
fn names(server: &file::Server) -> impl Iterator<Item = Arc<str>> {
    let template = server.address.value.question().and(server.name.as_ref());
    let template = template.map(|name| Arc::from(name.value.as_str()));
    let addresses = server.address.value.addresses();
    addresses
        .map(|address| name_at(&address, server))
        .chain(template)
}

/// The name of one of an item's servers.
fn name_at(address: &Address, server: &file::Server) -> Arc<str> {
    let name = server.name.as_ref().map(|name| name.value.as_str());
    match (name, &server.address.value, address.ip()) {
        (None, ..) => Arc::from(address.to_string()),
        (Some(name), Target::Ports(..), Some(ip)) => Arc::from(format!("{name}-{}", ip.port())),
        (Some(name), ..) => Arc::from(name),
    }
}

/// The servers that an item stands for, as far as they are known.
pub(in crate::config) fn checked_servers(server: &file::Server) -> impl Iterator<Item = Server> {
    server.address.value.addresses().map(|address| Server {
        name: name_at(&address, server),
        address,
        weight: weight(server),
        max_connections: server.max_connections,
        backup: server.backup.unwrap_or(false),
        found_by: None,
    })
}

/// What an item with a name stands for.
pub(super) fn checked_template(server: &file::Server) -> Option<Template> {
    let question = server.address.value.question()?;
    let name = server.name.as_ref();
    Some(Template {
        question: Arc::new(question.clone()),
        name: name.map(|name| Arc::from(name.value.as_str())),
        weight: weight(server),
        max_connections: server.max_connections,
        backup: server.backup.unwrap_or(false),
    })
}

fn weight(server: &file::Server) -> u32 {
    server.weight.unwrap_or(1)
}
