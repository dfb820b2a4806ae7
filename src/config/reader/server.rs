//! The list of a pool's servers, and the keys that each may have.
//!
//! Where a server is, and what a name means: [`super::super::target`].

use super::super::file::Server;
use super::super::mistake::{Mistakes, Wrong};
use super::super::target::{Target, target};
use super::super::tree::{Kind, Located, Node, Path, Section, items, value};
use super::super::words;
use super::{count, plain};

/// A pool's servers, one entry for each item and `None` for what could not be read. They are not
/// needed where a file has more of them.
pub(super) fn servers(
    are_needed: bool,
    section: &mut Section<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Option<Server>> {
    let entry = if are_needed {
        section.required("servers", "and a list of addresses under it", mistakes)
    } else {
        section.entry("servers")
    };
    let Some((key, node)) = entry else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let list = items(node, &path, mistakes);
    if are_needed && list.is_some_and(<[Node]>::is_empty) {
        let wrong = Wrong::new("there is no server", "write at least one address");
        mistakes.add(node.place, &path, wrong);
    }
    let read_one = |(index, item)| server(item, &Path::Item(&path, index), mistakes);
    let list = list.unwrap_or_default().iter().enumerate();
    list.map(read_one).collect()
}

/// An address, or keys of its own.
pub(in crate::config) fn server(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Server> {
    if let Kind::Text(_) = node.kind {
        return Some(Server {
            name: None,
            address: server_address(node, path, mistakes)?,
            weight: None,
            max_connections: None,
            backup: None,
        });
    }
    let mut section = Section::open(node, node.place, path, mistakes)?;
    let name = section.value("name", mistakes, words::name);
    let address = section.required("address", "10.0.0.11:5432", mistakes);
    let weight = section.value("weight", mistakes, words::weight);
    let max_connections = section.value("max_connections", mistakes, count);
    let backup = section.value("backup", mistakes, words::truth);
    let path = Path::Key(path, "address");
    let address = address.and_then(|(_, node)| server_address(node, &path, mistakes));
    section.close(mistakes);
    Some(Server {
        name,
        address: address?,
        weight: plain(weight),
        max_connections: plain(max_connections),
        backup: plain(backup),
    })
}

fn server_address(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<Target>> {
    value(node, path, mistakes, |text| target(text, node.place))
}
