//! What every comparison needs: things of one name side by side, lines about one of them, and values
//! as a user would write them.
//!
//! Knows no key.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::{Difference, Touch, What};
use crate::units::show_duration;

/// Things that have one name.
#[derive(Debug)]
pub(super) enum Pair<'c, T> {
    /// As it is, and as it is to be.
    Both(&'c T, &'c T),
    /// Only as it is.
    Gone(&'c T),
    /// Only as it is to be.
    New(&'c T),
}

impl<'c, T> Pair<'c, T> {
    /// The thing, as it is where there are both.
    pub(super) fn either(&self) -> &'c T {
        match self {
            Self::Both(thing, _) | Self::Gone(thing) | Self::New(thing) => thing,
        }
    }
}

/// Pairs by name: what there is in its order, then what is new in its own.
pub(super) fn pairs<'c, T>(
    running: &'c [T],
    wanted: &'c [T],
    name: fn(&T) -> &Arc<str>,
) -> Vec<Pair<'c, T>> {
    let mut left: HashMap<&str, &T> = wanted.iter().map(|new| (&**name(new), new)).collect();
    let mut pairs = Vec::with_capacity(running.len());
    for old in running {
        pairs.push(match left.remove(&**name(old)) {
            Some(new) => Pair::Both(old, new),
            None => Pair::Gone(old),
        });
    }
    if !left.is_empty() {
        let is_new = |new: &&T| left.contains_key(&**name(new));
        pairs.extend(wanted.iter().filter(is_new).map(Pair::New));
    }
    pairs
}

/// One thing while it is compared, and where what is found goes.
#[derive(Debug)]
pub(super) struct Thing<'a> {
    what: What,
    changes: &'a mut Vec<Difference>,
}

impl<'a> Thing<'a> {
    pub(super) fn new(what: What, changes: &'a mut Vec<Difference>) -> Self {
        Self { what, changes }
    }

    /// Adds a line that begins with the thing and goes on with `rest`; of the process, it is `rest`
    /// alone.
    pub(super) fn say(&mut self, touch: Touch, rest: &str) {
        let what = self.what.clone();
        let text = match &what {
            What::Listener(name) => format!("listener {name}{rest}"),
            What::Pool(name) => format!("pool {name}{rest}"),
            What::Server { pool, server } => format!("server {pool}/{server}{rest}"),
            What::Process => rest.trim_start_matches(": ").to_owned(),
        };
        self.changes.push(Difference { what, touch, text });
    }

    /// Adds a line where the key's values differ; no connection notices.
    pub(super) fn key<T: PartialEq>(
        &mut self,
        key: &str,
        running: &T,
        wanted: &T,
        show: impl Fn(&T) -> String,
    ) {
        if let Some(line) = changed(key, running, wanted, show) {
            self.say(Touch::Nothing, &format!(": {line}"));
        }
    }
}

/// `KEY OLD -> NEW` where they differ.
pub(super) fn changed<T: PartialEq>(
    key: &str,
    running: &T,
    wanted: &T,
    show: impl Fn(&T) -> String,
) -> Option<String> {
    (running != wanted).then(|| format!("{key} {} -> {}", show(running), show(wanted)))
}

/// Shows a value, or the word for there being none.
pub(super) fn or<T: Display>(word: &str) -> impl Fn(&Option<T>) -> String {
    move |value| match value {
        Some(value) => value.to_string(),
        None => word.to_owned(),
    }
}

pub(super) fn duration(duration: &Duration) -> String {
    show_duration(*duration)
}
