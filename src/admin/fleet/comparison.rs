//! What nodes have not in common: a row a server with what each node says of it, and a line a
//! difference that no table shows.
//!
//! Pure. A node that has told nothing is no difference: it is silent in every row.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::view::{PoolView, ServerView, View};
use crate::units::counted;

/// Lines of differences; the rest is counted.
const LINES_MAX: usize = 100;

/// A node and what it has told.
#[derive(Clone, Debug)]
pub struct Told {
    /// As users call it.
    pub name: String,
    /// Its status, or why there is none.
    pub view: Result<View, String>,
}

/// All of it.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// Each pool that any node has, in the order in which they come up.
    pub pools: Vec<ComparedPool<'a>>,
    /// A line each.
    pub differences: Vec<String>,
}

/// A pool over all nodes.
#[derive(Debug)]
pub struct ComparedPool<'a> {
    /// Its name.
    pub name: &'a str,
    /// Each server that any node has in it, in the order in which they come up.
    pub rows: Vec<Row<'a>>,
}

/// A server over all nodes.
#[derive(Debug)]
pub struct Row<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is, as the first node has it that says so.
    pub address: &'a str,
    /// In the order of the nodes.
    pub seen: Vec<Seen<'a>>,
    /// The state that most of the nodes have it in.
    usual: &'a str,
}

/// What one node says of one server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen<'a> {
    /// Nothing, nor of any other.
    Silent,
    /// It has no such server.
    Missing,
    /// This.
    There(&'a ServerView),
}

impl<'a> Comparison<'a> {
    /// Of nodes in the order in which they are shown.
    pub fn of(nodes: &'a [Told]) -> Self {
        let fleet = Fleet { nodes };
        let mut differences = Lines::default();
        differences.extend(fleet.differing("version", |view| Some(&*view.version)));
        let mut pools = Vec::new();
        for (name, seen) in fleet.pools() {
            fleet.note_pool(name, &seen, &mut differences);
            let rows = fleet.rows(&seen);
            for row in &rows {
                fleet.note_server(name, row, &seen, &mut differences);
            }
            pools.push(ComparedPool { name, rows });
        }
        fleet.note_configs(&mut differences);
        Self {
            pools,
            differences: differences.told(),
        }
    }
}

/// Lines of differences. Two nodes that have nothing in common have one for each server: those that
/// nobody will read are counted, and not kept.
#[derive(Default)]
struct Lines {
    kept: Vec<String>,
    more: u64,
}

impl Lines {
    fn push(&mut self, line: String) {
        match self.kept.len() < LINES_MAX {
            true => self.kept.push(line),
            false => self.more += 1,
        }
    }

    fn extend(&mut self, lines: impl IntoIterator<Item = String>) {
        lines.into_iter().for_each(|line| self.push(line));
    }

    fn told(mut self) -> Vec<String> {
        if self.more > 0 {
            let more = counted(self.more, "more difference");
            self.kept.push(format!("and {more}"));
        }
        self.kept
    }
}

impl Row<'_> {
    /// Whether that is not what most nodes say.
    pub fn is_odd(&self, seen: &Seen<'_>) -> bool {
        match seen {
            Seen::Silent => false,
            Seen::Missing => true,
            Seen::There(server) => server.state != self.usual,
        }
    }
}

/// A pool as each node has it: `None` where it does not, or is silent.
type OfEach<'a> = Vec<Option<&'a PoolView>>;

#[derive(Clone, Copy)]
struct Fleet<'a> {
    nodes: &'a [Told],
}

impl<'a> Fleet<'a> {
    fn views(self) -> impl Iterator<Item = Option<&'a View>> {
        self.nodes.iter().map(|told| told.view.as_ref().ok())
    }

    fn pools(self) -> Vec<(&'a str, OfEach<'a>)> {
        let each = self.views().map(|view| view.map(|view| &*view.pools));
        aligned(each, |pool| &pool.name)
    }

    fn rows(self, pools: &OfEach<'a>) -> Vec<Row<'a>> {
        let each = pools.iter().map(|pool| pool.map(|pool| &*pool.servers));
        let row = |(name, servers): (&'a str, Vec<Option<&'a ServerView>>)| {
            let known = servers.iter().flatten();
            let addresses = known.clone().map(|server| &*server.address);
            Row {
                name,
                address: addresses
                    .clone()
                    .find(|text| !text.is_empty())
                    .unwrap_or(""),
                usual: usual(known.map(|server| &*server.state)),
                seen: self.views().zip(servers).map(seen).collect(),
            }
        };
        aligned(each, |server| &server.name)
            .into_iter()
            .map(row)
            .collect()
    }

    /// Names of the nodes for which it is so.
    fn names(self, is_so: impl Fn(usize, &'a View) -> bool) -> Vec<&'a str> {
        let views = self.views().enumerate();
        let which = views.filter(|(at, view)| view.is_some_and(|view| is_so(*at, view)));
        which.map(|(at, _)| &*self.nodes[at].name).collect()
    }

    /// A line where not all that say something say the same.
    fn differing<T>(self, what: &str, said: impl Fn(&'a View) -> Option<T>) -> Vec<String>
    where
        T: Eq + Hash + ToString,
    {
        let said = self.views().map(|view| view.and_then(&said)).collect();
        self.by_value(what, said).into_iter().collect()
    }

    fn by_value<T: Eq + Hash + ToString>(self, what: &str, said: Vec<Option<T>>) -> Option<String> {
        let mut groups: Vec<(T, Vec<&str>)> = Vec::new();
        for (told, said) in self.nodes.iter().zip(said) {
            let Some(said) = said else {
                continue;
            };
            match groups.iter_mut().find(|(value, _)| *value == said) {
                Some((_, names)) => names.push(&told.name),
                None => groups.push((said, vec![&told.name])),
            }
        }
        let part = |(value, names): &(T, Vec<&str>)| {
            let value = value.to_string();
            format!("{value} on {}", names.join(", "))
        };
        let parts: Vec<_> = groups.iter().map(part).collect();
        (parts.len() > 1).then(|| format!("{what}: {}", parts.join("; ")))
    }

    fn note_pool(self, name: &str, seen: &OfEach<'a>, lines: &mut Lines) {
        let missing = self.names(|at, _| seen[at].is_none());
        if !missing.is_empty() {
            lines.push(format!("pool {name}: missing on {}", missing.join(", ")));
        }
        let said = |pool: &Option<&'a PoolView>| pool.map(|pool| &*pool.algorithm).filter(is_said);
        let algorithms = seen.iter().map(said).collect();
        lines.extend(self.by_value(&format!("pool {name}: algorithm"), algorithms));
    }

    fn note_server(self, pool: &str, row: &Row<'a>, pools: &OfEach<'a>, lines: &mut Lines) {
        let what = format!("server {pool}/{}", row.name);
        // That the whole pool is missing has been said.
        let missing = self.names(|at, _| row.seen[at] == Seen::Missing && pools[at].is_some());
        if !missing.is_empty() {
            lines.push(format!("{what}: missing on {}", missing.join(", ")));
        }
        let mut note = |key: &str, said: fn(&'a ServerView) -> Option<String>| {
            let each = row.seen.iter().map(|seen| seen.server().and_then(said));
            lines.extend(self.by_value(&format!("{what}: {key}"), each.collect()));
        };
        note("address", |server| Some(server.address.clone()));
        note("weight", |server| {
            server.weight.map(|weight| weight.to_string())
        });
        note("backup", |server| server.is_backup.map(|is| is.to_string()));
        note("max_connections", |server| {
            Some(match server.most {
                0 => "none".to_owned(),
                most => most.to_string(),
            })
        });
    }

    /// What a node runs with that its file does not say would be gone with the next reload.
    fn note_configs(self, lines: &mut Lines) {
        for (told, view) in self.nodes.iter().zip(self.views()) {
            let Some(view) = view else {
                continue;
            };
            if view.differs > 0 {
                let count = counted(view.differs as u64, "difference");
                lines.push(format!("{}: runs with {count} from its file", told.name));
            }
            if view.awaits_confirmation {
                lines.push(format!("{}: a reload awaits confirmation", told.name));
            }
        }
    }
}

impl<'a> Seen<'a> {
    /// The server, where it is there.
    pub fn server(&self) -> Option<&'a ServerView> {
        match self {
            Self::There(server) => Some(server),
            Self::Silent | Self::Missing => None,
        }
    }
}

fn seen<'a>((view, server): (Option<&'a View>, Option<&'a ServerView>)) -> Seen<'a> {
    match (view, server) {
        (None, _) => Seen::Silent,
        (Some(_), None) => Seen::Missing,
        (Some(_), Some(server)) => Seen::There(server),
    }
}

fn is_said(text: &&str) -> bool {
    !text.is_empty()
}

/// Things by name, each as every list has it, in the order in which they come up.
fn aligned<'a, T>(
    lists: impl Iterator<Item = Option<&'a [T]>>,
    name: fn(&T) -> &String,
) -> Vec<(&'a str, Vec<Option<&'a T>>)> {
    let lists: Vec<_> = lists.map(Option::unwrap_or_default).collect();
    let index = |list: &&'a [T]| {
        list.iter()
            .map(|each| (name(each).as_str(), each))
            .collect()
    };
    let indexes: Vec<HashMap<&str, &T>> = lists.iter().map(index).collect();
    let mut known = HashSet::new();
    let names = lists.iter().flat_map(|list| list.iter()).map(name);
    let names = names.filter(|name| known.insert(name.as_str()));
    let of_each = |name| {
        indexes
            .iter()
            .map(|index| index.get(name).copied())
            .collect()
    };
    names
        .map(|name| (name.as_str(), of_each(name.as_str())))
        .collect()
}

/// The most frequent one; of two that are as frequent `up`, which needs no look, else the first.
fn usual<'a>(states: impl Iterator<Item = &'a str>) -> &'a str {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for state in states {
        match counts.iter_mut().find(|(known, _)| *known == state) {
            Some((_, count)) => *count += 1,
            None => counts.push((state, 1)),
        }
    }
    // `max_by_key` takes the last of equals.
    let most = counts
        .into_iter()
        .rev()
        .max_by_key(|(state, count)| (*count, *state == "up"));
    most.map_or("", |(state, _)| state)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(name: &str, view: Result<Value, &str>) -> Told {
        Told {
            name: name.to_owned(),
            view: view.map(|status| View::of(&status)).map_err(str::to_owned),
        }
    }

    fn web(servers: Value) -> Value {
        json!({"version": "1", "pools": {"web": {"algorithm": "random", "servers": servers}}})
    }

    fn up() -> Value {
        json!({"address": "10.0.0.1:80", "state": "up", "weight": 1, "backup": false})
    }

    /// Each server's cells: `-` silent, `0` missing, else its state, with a mark where that is odd.
    fn cells(nodes: &[Told]) -> Vec<String> {
        let comparison = Comparison::of(nodes);
        let rows = comparison.pools.iter().flat_map(|pool| &pool.rows);
        let cell = |row: &Row<'_>, seen: &Seen<'_>| {
            let mark = if row.is_odd(seen) { "!" } else { "" };
            match seen {
                Seen::Silent => "-".to_owned(),
                Seen::Missing => format!("{mark}0"),
                Seen::There(server) => format!("{mark}{}", server.state),
            }
        };
        let line = |row: &Row<'_>| {
            let cells: Vec<_> = row.seen.iter().map(|seen| cell(row, seen)).collect();
            format!("{}: {}", row.name, cells.join(" "))
        };
        rows.map(line).collect()
    }

    #[test]
    fn the_state_of_most_is_usual_and_up_where_two_are_as_many() {
        let of = |states: &[&str]| usual(states.iter().copied()).to_owned();
        assert_eq!(of(&["down", "up"]), "up");
        assert_eq!(of(&["up", "down"]), "up");
        assert_eq!(of(&["down", "up", "down"]), "down");
        assert_eq!(of(&["down", "draining"]), "down");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn servers_are_rows_over_all_nodes_whatever_their_order() {
        let mut draining = up();
        draining["state"] = json!("draining");
        let nodes = [
            told("x", Ok(web(json!({"a": up(), "b": up()})))),
            told("y", Err("gone")),
            told("z", Ok(web(json!({"c": up(), "b": draining, "a": up()})))),
            told("v", Ok(web(json!({"b": up(), "a": up()})))),
        ];
        assert_eq!(
            cells(&nodes),
            ["a: up - up up", "b: up - !draining up", "c: !0 - up !0"]
        );
        assert_eq!(
            Comparison::of(&nodes).differences,
            ["server web/c: missing on x, v"]
        );
    }

    #[test]
    fn a_pool_that_is_missing_is_told_once() {
        let nodes = [
            told("x", Ok(web(json!({"a": up(), "b": up()})))),
            told("y", Ok(json!({"version": "1", "pools": {}}))),
        ];
        assert_eq!(cells(&nodes), ["a: up !0", "b: up !0"]);
        assert_eq!(
            Comparison::of(&nodes).differences,
            ["pool web: missing on y"]
        );
    }

    #[test]
    fn what_an_older_version_does_not_say_is_no_difference() {
        let old = json!({"version": "1", "pools": {"web": {"servers": {"a": {"state": "up",
            "address": "10.0.0.1:80"}}}}});
        let nodes = [told("x", Ok(web(json!({"a": up()})))), told("y", Ok(old))];
        assert_eq!(Comparison::of(&nodes).differences, Vec::<String>::new());
        assert_eq!(cells(&nodes), ["a: up up"]);
    }

    #[test]
    fn each_key_of_a_server_is_compared() {
        let mut other = up();
        other["address"] = json!("10.0.0.2:80");
        other["weight"] = json!(2);
        other["backup"] = json!(true);
        other["max_connections"] = json!(7);
        let mut second = web(json!({"a": other}));
        second["pools"]["web"]["algorithm"] = json!("first");
        second["config"] = json!({"confirm_seconds": 4.0, "differs": ["x", "y"]});
        let nodes = [
            told("x", Ok(web(json!({"a": up()})))),
            told("y", Ok(second)),
        ];
        assert_eq!(
            Comparison::of(&nodes).differences,
            [
                "pool web: algorithm: random on x; first on y",
                "server web/a: address: 10.0.0.1:80 on x; 10.0.0.2:80 on y",
                "server web/a: weight: 1 on x; 2 on y",
                "server web/a: backup: false on x; true on y",
                "server web/a: max_connections: none on x; 7 on y",
                "y: runs with 2 differences from its file",
                "y: a reload awaits confirmation",
            ]
        );
    }

    #[test]
    fn lines_have_an_end() {
        let many: serde_json::Map<String, Value> =
            (0..500).map(|number| (number.to_string(), up())).collect();
        let nodes = [
            told("x", Ok(web(many.into()))),
            told("y", Ok(web(json!({})))),
        ];
        let differences = Comparison::of(&nodes).differences;
        assert_eq!(differences.len(), LINES_MAX + 1);
        assert_eq!(differences[LINES_MAX], "and 400 more differences");
    }
}
