//! What differs in a pool's servers and in what brings more of them. Of servers that were found only
//! those on both sides are compared, where an operator may have changed one: that others come and go
//! is their way, and whatever brings them is compared instead.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::pair::{Pair, Thing, changed, or, pairs};
use super::{Difference, Touch, What};
use crate::config::{Question, Server, Template};
use crate::units::counted;

/// Those that no template has brought.
pub(super) fn written(servers: &[Server]) -> Vec<&Server> {
    let is_written = |server: &&Server| server.found_by.is_none();
    servers.iter().filter(is_written).collect()
}

/// Whether those that stay follow one another as they did.
pub(super) fn keep_their_order(running: &[&Server], wanted: &[&Server]) -> bool {
    let places = running.iter().enumerate();
    let places: HashMap<_, _> = places
        .map(|(place, server)| (&server.name, place))
        .collect();
    wanted
        .iter()
        .filter_map(|server| places.get(&server.name))
        .is_sorted()
}

pub(super) fn diff_servers(
    pool: &Arc<str>,
    running: &[Server],
    wanted: &[Server],
    changes: &mut Vec<Difference>,
) {
    for pair in pairs(running, wanted, |server| &server.name) {
        let what = What::Server {
            pool: Arc::clone(pool),
            server: Arc::clone(&pair.either().name),
        };
        let mut thing = Thing::new(what, changes);
        match pair {
            Pair::Both(old, new) => diff_server(old, new, thing),
            Pair::Gone(one) | Pair::New(one) if one.found_by.is_some() => {}
            Pair::Gone(_) => thing.say(Touch::Connections, " removed"),
            Pair::New(new) => {
                let words = server_words(new);
                thing.say(Touch::Nothing, &format!(" added ({words})"));
            }
        }
    }
}

fn diff_server(running: &Server, wanted: &Server, mut thing: Thing<'_>) {
    let Server {
        name: _,
        address,
        weight,
        max_connections,
        backup,
        // One that is written down from now on, or no longer, is the same server.
        found_by: _,
    } = running;
    if let Some(line) = changed("address", address, &wanted.address, ToString::to_string) {
        thing.say(Touch::Connections, &format!(": {line}"));
    }
    thing.key("weight", weight, &wanted.weight, u32::to_string);
    let most = &wanted.max_connections;
    thing.key("max_connections", max_connections, most, or("no limit"));
    thing.key("backup", backup, &wanted.backup, bool::to_string);
}

/// Where a server is, and what is special about it.
fn server_words(server: &Server) -> String {
    let words = special_words(server.weight, server.max_connections, server.backup);
    format!("{}{words}", server.address)
}

/// What is not as usual, each behind a comma.
fn special_words(weight: u32, max_connections: Option<NonZeroU32>, backup: bool) -> String {
    let mut words = String::new();
    if weight != 1 {
        words.push_str(&format!(", weight {weight}"));
    }
    if let Some(most) = max_connections {
        let most = counted(most.get().into(), "connection");
        words.push_str(&format!(", at most {most}"));
    }
    if backup {
        words.push_str(", backup");
    }
    words
}

/// What is looked up is the same where the question is. Where it is asked no longer, its servers go.
pub(super) fn diff_templates(running: &[Template], wanted: &[Template], thing: &mut Thing<'_>) {
    let mut left = by_question(wanted);
    for old in running {
        match left.remove(&*old.question) {
            Some(new) => diff_template(old, new, thing),
            None => {
                let gone = format!(": servers of {} removed", old.question);
                thing.say(Touch::Connections, &gone);
            }
        }
    }
    let is_new = |new: &&Template| left.contains_key(&*new.question);
    for new in wanted.iter().filter(is_new) {
        let words = special_words(new.weight, new.max_connections, new.backup);
        let words = words.trim_start_matches(", ");
        let words = if words.is_empty() {
            String::new()
        } else {
            format!(" ({words})")
        };
        let added = format!(": servers of {} added{words}", new.question);
        thing.say(Touch::Nothing, &added);
    }
}

fn by_question(templates: &[Template]) -> HashMap<&Question, &Template> {
    templates.iter().map(|one| (&*one.question, one)).collect()
}

fn diff_template(running: &Template, wanted: &Template, thing: &mut Thing<'_>) {
    let Template {
        question,
        name,
        weight,
        max_connections,
        backup,
    } = running;
    let key = |key: &str| format!("{key} of {question}");
    // Another name is another server, and the connections are those of the old one.
    let line = changed(&key("name"), name, &wanted.name, or("the address"));
    if let Some(line) = line {
        thing.say(Touch::Connections, &format!(": {line}"));
    }
    thing.key(&key("weight"), weight, &wanted.weight, u32::to_string);
    let most = &wanted.max_connections;
    let most_words = or("no limit");
    thing.key(&key("max_connections"), max_connections, most, most_words);
    thing.key(&key("backup"), backup, &wanted.backup, bool::to_string);
}
