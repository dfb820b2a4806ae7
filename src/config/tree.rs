//! A configuration as a tree of values, each with its place, and the reading of one section of it:
//! keys are asked for by name, and whatever was not asked for is an unknown key. Reading goes on
//! after a mistake, so that one run finds them all; `None` always means that the value is absent or
//! that its mistake has been noted.
//!
//! Knows neither YAML nor any key. `Path` lives on the stack and costs nothing until it is printed.

use std::collections::HashMap;
use std::fmt;

use super::mistake::{Mistakes, Place, Wrong, plain, quoted, write_one_of};

/// One value.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// Types are the reader's business: `5`, `"5"` and `off` are all texts here.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Nothing,
    /// With quotes taken off and escapes resolved.
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; a key may be there twice.
    Map(Vec<(Key, Node)>),
    /// Its mistake has been noted already.
    Noted,
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
}

/// A value that a later check may have to point at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Located<T> {
    pub(super) place: Place,
    pub(super) value: T,
}

/// The way to a value, such as `pools.web.servers[2].weight`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(&plain(key)),
            Self::Key(parent, key) => write!(f, "{parent}.{}", plain(key)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A map whose keys are known beforehand, while it is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// Where a key that is missing is reported.
    pub(super) place: Place,
    pub(super) path: &'a Path<'a>,
    /// What was not asked for yet.
    entries: Vec<&'a (Key, Node)>,
    /// The keys that there are, as far as they were asked for: all of them once it is closed.
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// `place` is where the section as a whole is reported: its key, or its item in a list.
    pub(super) fn open(
        node: &'a Node,
        place: Place,
        path: &'a Path<'a>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let entries = entries(node, path, mistakes)?;
        let section = Self::empty(place, path);
        Some(Self { entries, ..section })
    }

    /// A section in which no key was written.
    pub(super) fn empty(place: Place, path: &'a Path<'a>) -> Self {
        Self {
            place,
            path,
            entries: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Whether the key is there and was not asked for yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.0.text == key)
    }

    /// Where the value of a key is that was not asked for yet; the section's place where there is
    /// none.
    pub(super) fn node_place(&self, key: &str) -> Place {
        let entry = self.entries.iter().find(|entry| entry.0.text == key);
        entry.map_or(self.place, |(_, node)| node.place)
    }

    /// The value of a key, whatever its type.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        Some(&self.entry(key)?.1)
    }

    /// The key and its value, whatever its type.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'a (Key, Node)> {
        self.asked.push(key);
        let found = self.entries.iter().position(|entry| entry.0.text == key)?;
        Some(self.entries.remove(found))
    }

    /// The value of a key that must be there, whatever its type.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        example: &str,
        mistakes: &mut Mistakes,
    ) -> Option<&'a (Key, Node)> {
        let entry = self.entry(key);
        if entry.is_none() {
            let what = format!("the key {key} is missing");
            let wrong = Wrong::new(what, format!("write {key}: {example}"));
            mistakes.add(self.place, self.path, wrong);
        }
        entry
    }

    /// The value of a key that `read` understands.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<Located<T>> {
        let node = self.node(key)?;
        value(node, &Path::Key(self.path, key), mistakes, read)
    }

    /// The same with a default where the key is absent, so that `None` is always unreadable.
    pub(super) fn value_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<Located<T>> {
        match self.node(key) {
            Some(node) => value(node, &Path::Key(self.path, key), mistakes, read),
            None => Some(Located {
                place: self.place,
                value: default,
            }),
        }
    }

    /// Notes every key that was not asked for.
    pub(super) fn close(self, mistakes: &mut Mistakes) {
        for (key, _) in self.entries {
            let what = format!("unknown key {}", quoted(&key.text));
            let remedy = write_one_of(&key.text, &self.asked);
            let path = Path::Key(self.path, &key.text);
            mistakes.add(key.place, &path, Wrong::new(what, remedy));
        }
    }
}

/// A single value that `read` understands.
pub(super) fn value<T>(
    node: &Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
    read: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Option<Located<T>> {
    let wrong = match &node.kind {
        Kind::Text(text) => match read(text) {
            Ok(value) => {
                let place = node.place;
                return Some(Located { place, value });
            }
            Err(wrong) => wrong,
        },
        Kind::Nothing => no_value(),
        Kind::List(_) => Wrong::new("this is a list", "write a single value"),
        Kind::Map(_) => Wrong::new("this has keys of its own", "write a single value"),
        Kind::Noted => return None,
    };
    mistakes.add(node.place, path, wrong);
    None
}

/// The keys of a map and their values, each key once.
pub(super) fn entries<'a>(
    node: &'a Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Vec<&'a (Key, Node)>> {
    let wrong = match &node.kind {
        Kind::Map(entries) => return Some(without_duplicates(entries, path, mistakes)),
        Kind::Nothing => no_value(),
        Kind::Text(text) => {
            let what = format!("{} stands where keys belong", quoted(text));
            Wrong::new(what, "write one KEY: VALUE a line")
        }
        Kind::List(_) => Wrong::new(
            "this is a list",
            "write KEY: VALUE lines without the dashes",
        ),
        Kind::Noted => return None,
    };
    mistakes.add(node.place, path, wrong);
    None
}

fn without_duplicates<'a>(
    entries: &'a [(Key, Node)],
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Vec<&'a (Key, Node)> {
    let mut first: HashMap<&str, Place> = HashMap::with_capacity(entries.len());
    let mut kept = Vec::with_capacity(entries.len());
    for entry in entries {
        let key = &entry.0;
        match first.get(key.text.as_str()) {
            None => {
                first.insert(&key.text, key.place);
                kept.push(entry);
            }
            Some(place) => {
                let what = format!("the key is in {} already", place.mention(key.place));
                let wrong = Wrong::new(what, "remove one of the two");
                mistakes.add(key.place, &Path::Key(path, &key.text), wrong);
            }
        }
    }
    kept
}

/// The items of a list.
pub(super) fn items<'a>(
    node: &'a Node,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<&'a [Node]> {
    let wrong = match &node.kind {
        Kind::List(items) => return Some(items),
        Kind::Nothing => no_value(),
        Kind::Text(_) | Kind::Map(_) => Wrong::new(
            "this is not a list",
            "write one item a line, each after a dash",
        ),
        Kind::Noted => return None,
    };
    mistakes.add(node.place, path, wrong);
    None
}

/// `key:` with nothing behind it may be a forgotten value or a wish for the default: ask.
fn no_value() -> Wrong {
    Wrong::new("there is no value", "write one or remove the key")
}
