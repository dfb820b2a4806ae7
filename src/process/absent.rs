//! What operators want of servers that are not found at present: one that drops out of an answer and
//! comes back with a later one is as it was left.
//!
//! Pure, and bounded: answers decide who is absent, so somebody may send new names for ever. Nothing
//! is kept of written servers: whoever takes one out of the config means it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::address::Address;
use crate::config::{Config, Question, Server};

/// Of each pool; as many as are taken of one answer. The longest absent ones are forgotten first.
const KEPT_MAX: usize = 1000;

/// A wish for each absent server that there is one for.
#[derive(Clone, Debug)]
pub(super) struct Absent<T>(HashMap<Arc<str>, VecDeque<Kept<T>>>);

#[derive(Clone, Debug)]
struct Kept<T> {
    name: Arc<str>,
    address: Address,
    found_by: Arc<Question>,
    wish: T,
}

impl<T> Kept<T> {
    fn is_of(&self, server: &Server) -> bool {
        self.name == server.name && self.address == server.address
    }
}

impl<T> Default for Absent<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Absent<T> {
    /// Keeps what is wanted of a found server that is about to be absent.
    pub(super) fn note(&mut self, pool: &Arc<str>, server: &Server, wish: T) {
        let Some(found_by) = &server.found_by else {
            return;
        };
        let kept = self.0.entry(Arc::clone(pool)).or_default();
        kept.retain(|kept| !kept.is_of(server));
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Kept {
            name: Arc::clone(&server.name),
            address: server.address.clone(),
            found_by: Arc::clone(found_by),
            wish,
        });
    }

    /// What was wanted of a server that is found again.
    pub(super) fn take(&mut self, pool: &str, server: &Server) -> Option<T> {
        let kept = self.0.get_mut(pool).filter(|_| server.found_by.is_some())?;
        let place = kept.iter().position(|kept| kept.is_of(server))?;
        kept.remove(place).map(|kept| kept.wish)
    }

    /// Every wish, with its pool, the server's name and address, and what it came from.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Address, &Question, &T)> {
        let pools = self.0.iter();
        pools.flat_map(|(pool, kept)| {
            let wishes = kept.iter();
            wishes.map(|kept| {
                let found_by = &*kept.found_by;
                (&**pool, &*kept.name, &kept.address, found_by, &kept.wish)
            })
        })
    }

    /// Forgets servers whose name or file stands in their pool no more.
    pub(super) fn keep_for(&mut self, config: &Config) {
        if self.0.is_empty() {
            return;
        }
        let asked = config.pools.iter().map(|pool| {
            let templates = pool.templates.iter();
            let questions: HashSet<_> = templates.map(|one| &one.question).collect();
            (&*pool.name, questions)
        });
        let asked: HashMap<_, _> = asked.collect();
        self.0.retain(|pool, kept| {
            let asked = asked.get(&**pool);
            kept.retain(|kept| asked.is_some_and(|asked| asked.contains(&kept.found_by)));
            !kept.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn question() -> Arc<Question> {
        Arc::new(Question::Service("_db._tcp.db.test".into()))
    }

    fn found(number: usize) -> Server {
        Server {
            name: format!("s{number}").into(),
            address: Address::from(std::net::SocketAddr::from(([10, 0, 0, 1], 80))),
            weight: 1,
            max_connections: None,
            backup: false,
            found_by: Some(question()),
        }
    }

    #[test]
    fn a_wish_is_kept_until_its_server_is_back() {
        let mut absent = Absent::default();
        let pool = Arc::from("db");
        absent.note(&pool, &found(1), 7);
        absent.note(&pool, &found(1), 8);
        let elsewhere = Server {
            address: Address::from(std::net::SocketAddr::from(([10, 0, 0, 2], 80))),
            ..found(1)
        };
        let written = Server {
            found_by: None,
            ..found(1)
        };
        assert_eq!(absent.take("db", &elsewhere), None);
        assert_eq!(absent.take("db", &written), None);
        assert_eq!(absent.take("web", &found(1)), None);
        assert_eq!(absent.take("db", &found(1)), Some(8));
        assert_eq!(absent.take("db", &found(1)), None);
        absent.note(&pool, &written, 9);
        assert_eq!(absent.take("db", &found(1)), None);
    }

    #[test]
    fn the_longest_absent_are_forgotten_first() {
        let mut absent = Absent::default();
        let pool = Arc::from("db");
        (0..=KEPT_MAX).for_each(|number| absent.note(&pool, &found(number), number));
        assert_eq!(absent.take("db", &found(0)), None);
        assert_eq!(absent.take("db", &found(1)), Some(1));
        assert_eq!(absent.take("db", &found(KEPT_MAX)), Some(KEPT_MAX));
    }

    #[test]
    fn who_is_looked_up_no_more_is_forgotten() {
        let text = "listeners: {l: {bind: '127.0.0.1:1', pool: db}}\n\
                    pools: {db: {servers: ['srv:_db._tcp.db.test', '10.0.0.9:80']}}\n";
        let config = config::read("t", text).unwrap();
        let asks: Vec<_> = config.pools[0].templates.iter().collect();
        assert_eq!(asks[0].question, question());
        let mut absent = Absent::default();
        absent.note(&Arc::from("db"), &found(1), 1);
        absent.note(&Arc::from("gone"), &found(2), 2);
        absent.keep_for(&config);
        assert_eq!(absent.take("gone", &found(2)), None);
        assert_eq!(absent.take("db", &found(1)), Some(1));
        absent.note(&Arc::from("db"), &found(1), 1);
        let other = config::read("t", &text.replace("_db._tcp", "_other._tcp")).unwrap();
        absent.keep_for(&other);
        assert_eq!(absent.take("db", &found(1)), None);
    }
}
