//! Which pool the clients of a server name go to, made once and asked with each connection.
//!
//! Knows names in lower case and without a dot at the end; how a client says its name is `wire`'s.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::ServerPattern;
use crate::ids::PoolId;

/// Pools by server name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    exact: HashMap<Arc<str>, PoolId>,
    /// By what stands behind the first dot.
    below: HashMap<Arc<str>, PoolId>,
}

impl ServerNames {
    /// A pattern that is written twice leads where the last one says.
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a ServerPattern, PoolId)>) -> Self {
        let mut names = Self::default();
        for (pattern, pool) in routes {
            match pattern {
                ServerPattern::Exact(name) => names.exact.insert(Arc::clone(name), pool),
                ServerPattern::Below(name) => names.below.insert(Arc::clone(name), pool),
            };
        }
        names
    }

    /// Where `name` leads: the name itself goes before every pattern, and the longest pattern before
    /// shorter ones. A name has at most 127 labels, so this is as many look-ups.
    pub fn find(&self, name: &str) -> Option<PoolId> {
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        let mut below = parents.filter_map(|parent| self.below.get(parent));
        self.exact.get(name).or_else(|| below.next()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_itself_goes_first_and_then_the_longest_pattern() {
        let exact = |name: &str| ServerPattern::Exact(name.into());
        let below = |name: &str| ServerPattern::Below(name.into());
        let patterns = [
            exact("db.example.com"),
            below("example.com"),
            below("eu.example.com"),
            exact("a.eu.example.com"),
            below("com"),
        ];
        let routes = patterns.iter().zip((0..).map(PoolId::new));
        let names = ServerNames::new(routes);
        for (name, pool) in [
            ("db.example.com", Some(0)),
            ("x.example.com", Some(1)),
            ("x.db.example.com", Some(1)),
            ("eu.example.com", Some(1)),
            ("x.eu.example.com", Some(2)),
            ("y.x.eu.example.com", Some(2)),
            ("a.eu.example.com", Some(3)),
            ("example.com", Some(4)),
            ("xexample.com", Some(4)),
            ("com", None),
            ("localhost", None),
            ("example.org", None),
            ("", None),
        ] {
            assert_eq!(names.find(name), pool.map(PoolId::new), "{name}");
        }
    }
}
