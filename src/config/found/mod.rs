//! What answers bring: servers that stand in no config, found by a name's records or in a file, and
//! the config that they and the written servers make together.
//!
//! Pure: who asks, and how often, is the resolver's business.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::{Config, Pool, Question, SERVERS_MAX, Server, Template, is_name};
use crate::address::Address;

#[cfg(test)]
mod tests;

/// One server, as far as an answer describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where it listens.
    pub address: Address,
    /// Only files give names.
    pub name: Option<Arc<str>>,
    /// Its share against the others, 0 to 256; `None` is the template's.
    pub weight: Option<u32>,
    /// `None` is the template's.
    pub max_connections: Option<NonZeroU32>,
    /// Only picked while no other server can take the connection; the template may say so, too.
    pub backup: bool,
}

impl Found {
    /// A server of which nothing else is said.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            address,
            name: None,
            weight: None,
            max_connections: None,
            backup: false,
        }
    }
}

/// The last good answer to each question, as far as there is one.
pub type Answers = HashMap<Arc<Question>, Arc<[Found]>>;

/// A config with what was found.
#[derive(Debug)]
pub struct Expansion {
    /// Found servers stand behind the written ones of their pool, in the order of the templates.
    pub config: Config,
    /// Who was found and is not in it, and why: a line each.
    pub left_out: Vec<String>,
}

/// `config` with the servers of `answers` in place of those that were found before. An address that
/// is written as well, or that another template of the pool has brought, is one server. Of the others
/// `refuse` may give a reason why the pool (by its index) must not have the address; it is shown what
/// the config has become so far.
pub fn expand(
    config: &Config,
    answers: &Answers,
    mut refuse: impl FnMut(&Config, usize, &Address) -> Option<String>,
) -> Expansion {
    let mut config = config.clone();
    for pool in &mut config.pools {
        pool.servers.retain(|server| server.found_by.is_none());
    }
    let written: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
    let mut room = SERVERS_MAX.saturating_sub(written);
    let mut left_out = Vec::new();
    for index in 0..config.pools.len() {
        let mut crowd = Crowd::of(&config.pools[index]);
        for (template, found) in answered(&config.pools[index], answers) {
            let joins = match (crowd.server(&found, &template), room) {
                (Ok(None), _) => continue,
                (Ok(Some(_)), 0) => Err(format!("there are {SERVERS_MAX} servers already")),
                (Ok(Some(server)), _) => match refuse(&config, index, &found.address) {
                    None => Ok(server),
                    Some(reason) => Err(reason),
                },
                (Err(reason), _) => Err(reason),
            };
            let pool = &mut config.pools[index];
            match joins {
                Ok(server) => {
                    room -= 1;
                    crowd.take(&server);
                    pool.servers.push(server);
                }
                Err(reason) => left_out.push(format!(
                    "pool {}: {} of {} is left out: {reason}",
                    pool.name, found.address, template.question
                )),
            }
        }
    }
    Expansion { config, left_out }
}

/// What the templates of a pool have found, in their order.
fn answered(pool: &Pool, answers: &Answers) -> Vec<(Template, Found)> {
    let templates = pool.templates.iter();
    let answered = templates.filter_map(|one| Some((one, answers.get(&one.question)?)));
    let all = answered.flat_map(|(template, found)| {
        let found = found.iter().cloned();
        found.map(move |found| (template.clone(), found))
    });
    all.collect()
}

/// Names and addresses that a pool has already.
#[derive(Debug)]
struct Crowd {
    addresses: HashSet<Address>,
    names: HashSet<Arc<str>>,
}

impl Crowd {
    fn of(pool: &Pool) -> Self {
        let addresses = pool.servers.iter().map(|server| server.address.clone());
        let names = pool.servers.iter().map(|server| Arc::clone(&server.name));
        Self {
            addresses: addresses.collect(),
            names: names.collect(),
        }
    }

    fn take(&mut self, server: &Server) {
        self.addresses.insert(server.address.clone());
        self.names.insert(Arc::clone(&server.name));
    }

    /// What was found as a server; `None` where the pool has the address already.
    ///
    /// # Errors
    /// Where every name that it could have is another's.
    fn server(&self, found: &Found, template: &Template) -> Result<Option<Server>, String> {
        if self.addresses.contains(&found.address) {
            return Ok(None);
        }
        let address = found.address.to_string();
        let of_template = template
            .name
            .as_ref()
            .map(|name| format!("{name}-{address}"));
        // A name that is too long, or taken, is no reason to do without the server.
        let of_template = of_template.filter(|name| is_name(name)).map(Arc::from);
        let names = [found.name.clone(), of_template, Some(address.into())];
        let is_free = |name: &Arc<str>| !self.names.contains(name);
        let name = names.into_iter().flatten().find(is_free);
        let name = name.ok_or_else(|| "another server has its name".to_owned())?;
        Ok(Some(Server {
            name,
            address: found.address.clone(),
            weight: found.weight.unwrap_or(template.weight),
            max_connections: found.max_connections.or(template.max_connections),
            backup: template.backup || found.backup,
            found_by: Some(Arc::clone(&template.question)),
        }))
    }
}

/// `next` with the weights that an operator has given found servers: where `running` has another
/// weight than `before`, which is how the same servers were before anybody changed them. Those that
/// `next` has no place for, as they are, with their pools.
pub fn keep_weights(
    running: &Config,
    before: &Config,
    next: &mut Config,
) -> Vec<(Arc<str>, Server)> {
    let mut changed = changed_weights(running, before);
    if changed.is_empty() {
        return Vec::new();
    }
    for pool in &mut next.pools {
        for server in pool.servers.iter_mut().filter(|s| s.found_by.is_some()) {
            if let Some(kept) = changed.remove(&key(&pool.name, server)) {
                server.weight = kept.weight;
            }
        }
    }
    let gone = changed.into_iter();
    gone.map(|((pool, ..), server)| (pool, server.clone()))
        .collect()
}

/// What makes a found server the same one.
type Key = (Arc<str>, Arc<str>, Address);

fn key(pool: &Arc<str>, server: &Server) -> Key {
    let name = Arc::clone(&server.name);
    (Arc::clone(pool), name, server.address.clone())
}

/// Found servers of `running` with another weight than in `before`.
fn changed_weights<'r>(running: &'r Config, before: &Config) -> HashMap<Key, &'r Server> {
    let before: HashMap<_, _> = found(before).collect();
    let is_changed =
        |(key, server): &(Key, &Server)| before.get(key).is_some_and(|b| b.weight != server.weight);
    found(running).filter(is_changed).collect()
}

fn found(config: &Config) -> impl Iterator<Item = (Key, &Server)> {
    let pools = config.pools.iter();
    let servers = pools.flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
    let found = servers.filter(|(_, server)| server.found_by.is_some());
    found.map(|(pool, server)| (key(&pool.name, server), server))
}
