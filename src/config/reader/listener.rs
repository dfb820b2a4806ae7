//! The keys of a listener.

use super::super::file::Listener;
use super::super::mistake::{Mistakes, Wrong};
use super::super::tree::{Key, Kind, Located, Node, Path, Section, value};
use super::super::{address, words};
use super::plain;
use crate::address::Address;

pub(super) fn listener(
    entry: &(Key, Node),
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Listener> {
    let (name, node) = entry;
    let mut section = Section::open(node, name.place, path, mistakes)?;
    let listener = Listener {
        name: name.clone(),
        bind: bind(&mut section, mistakes),
        pool: pool_name(&mut section, mistakes),
        idle_timeout: plain(section.value("idle_timeout", mistakes, words::timeout)),
        half_close_timeout: plain(section.value("half_close_timeout", mistakes, words::timeout)),
    };
    section.close(mistakes);
    Some(listener)
}

/// One address, or a list of them.
fn bind(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Vec<Option<Located<Address>>> {
    let Some((key, node)) = section.required("bind", "0.0.0.0:5432", mistakes) else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let Kind::List(list) = &node.kind else {
        return vec![bind_address(node, &path, mistakes)];
    };
    if list.is_empty() {
        let wrong = Wrong::new("there is no address", "write at least one");
        mistakes.add(node.place, &path, wrong);
    }
    let read_one = |(index, item)| bind_address(item, &Path::Item(&path, index), mistakes);
    list.iter().enumerate().map(read_one).collect()
}

fn bind_address(node: &Node, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Located<Address>> {
    value(node, path, mistakes, |text| {
        address::bind(text, node.place).map(Address::from)
    })
}

/// Whether there is such a pool is seen later: it may stand further down.
fn pool_name(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<String>> {
    let (key, node) = section.required("pool", "and the name of a pool", mistakes)?;
    let path = Path::Key(section.path, &key.text);
    value(node, &path, mistakes, words::reference)
}
