//! What an operator has changed without the file, and what names and files have answered: a config with
//! all of that is what was served before.
//!
//! Pure. Where the file has changed since, it is the last word, as with a reload; whether it has is for
//! the caller to say.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::{self, Answers, Config, Found, Question, SERVERS_MAX, Server, WEIGHT_MAX};
use crate::handover::world::{AbsentState, AddedState, AnswerState, FoundState, WishesState};

/// Servers that were added and removed; before what was found takes its place among them.
pub(super) fn with_servers(mut config: Config, wishes: &WishesState) -> Config {
    for pool in &mut config.pools {
        let is_removed = |server: &Server| {
            let is_it =
                |(of, name): &(String, String)| **of == *pool.name && **name == *server.name;
            wishes.removed.iter().any(is_it)
        };
        pool.servers
            .retain(|server| server.found_by.is_some() || !is_removed(server));
    }
    for added in &wishes.added {
        let count: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
        let pool = config.pools.iter_mut().find(|it| *it.name == *added.pool);
        let (Some(pool), Some(server)) = (pool, server(added)) else {
            continue;
        };
        let is_there =
            |other: &Server| other.name == server.name || other.address == server.address;
        if count < SERVERS_MAX && !pool.servers.iter().any(is_there) {
            pool.servers.push(server);
        }
    }
    config
}

fn server(added: &AddedState) -> Option<Server> {
    Some(Server {
        name: added.name.as_str().into(),
        address: config::server_address(&added.address).ok()?,
        weight: added.weight.min(WEIGHT_MAX),
        max_connections: added.max_connections.and_then(NonZeroU32::new),
        backup: added.backup,
        found_by: None,
    })
}

/// Weights and algorithms; after what was found has its place.
pub(super) fn with_settings(mut config: Config, wishes: &WishesState) -> Config {
    for pool in &mut config.pools {
        let algorithm = wishes.algorithms.get(&*pool.name);
        if let Some(Ok(algorithm)) = algorithm.map(|name| name.parse()) {
            pool.algorithm = algorithm;
        }
        for wish in wishes.weights.iter().filter(|it| *it.pool == *pool.name) {
            let mut servers = pool.servers.iter_mut();
            if let Some(server) = servers.find(|server| *server.name == *wish.server) {
                server.weight = wish.weight.min(WEIGHT_MAX);
            }
        }
    }
    config
}

/// A found server that is not found at present, with its pool's name, where the config looks it up.
pub(super) fn absent(config: &Config, state: &AbsentState) -> Option<(Arc<str>, Server)> {
    let pool = config.pools.iter().find(|it| *it.name == *state.pool)?;
    let mut questions = pool.templates.iter().map(|template| &template.question);
    let question = questions.find(|question| question.to_string() == state.source)?;
    let server = Server {
        name: state.name.as_str().into(),
        address: config::server_address(&state.address).ok()?,
        weight: 1,
        max_connections: None,
        backup: false,
        found_by: Some(Arc::clone(question)),
    };
    Some((Arc::clone(&pool.name), server))
}

/// The answers to what the config asks, as far as they are known.
pub(super) fn answers(config: &Config, known: &[AnswerState]) -> Answers {
    let templates = config.pools.iter().flat_map(|pool| &pool.templates);
    let answered = templates.filter_map(|template| {
        let question: &Arc<Question> = &template.question;
        let source = question.to_string();
        let state = known.iter().find(|state| state.source == source)?;
        let found = state.found.iter().filter_map(found).collect();
        Some((Arc::clone(question), found))
    });
    answered.collect()
}

fn found(state: &FoundState) -> Option<Found> {
    Some(Found {
        address: config::server_address(&state.address).ok()?,
        name: state.name.as_deref().map(Arc::from),
        weight: state.weight.map(|weight| weight.min(WEIGHT_MAX)),
        max_connections: state.max_connections.and_then(NonZeroU32::new),
        backup: state.backup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::world::WeightState;

    const TEXT: &str = "listeners: {l: {bind: '127.0.0.1:1', pool: web}}\n\
                        pools:\n\
                        \x20 web:\n\
                        \x20   servers: [{name: a, address: '10.0.0.1:1'}, \
                        {name: b, address: '10.0.0.2:1'}, 'db.test:80']\n";

    fn added(name: &str, address: &str) -> AddedState {
        AddedState {
            pool: "web".to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            weight: 7,
            ..AddedState::default()
        }
    }

    fn shown(config: &Config) -> String {
        let servers = config.pools[0].servers.iter();
        let servers = servers.map(|server| format!("{}={}", server.name, server.weight));
        servers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_was_wanted_without_the_file_is_wanted_again() {
        let config = config::read("t", TEXT).unwrap();
        let weight = |server: &str, weight| WeightState {
            pool: "web".to_owned(),
            server: server.to_owned(),
            weight,
        };
        let wishes = WishesState {
            weights: vec![weight("b", 5), weight("gone", 5)],
            algorithms: [("web".to_owned(), "random".to_owned())].into(),
            added: vec![
                added("c", "10.0.0.3:1"),
                added("b", "10.0.0.4:1"),
                added("d", "10.0.0.2:1"),
                added("e", "nonsense"),
            ],
            removed: vec![("web".to_owned(), "a".to_owned())],
            ..WishesState::default()
        };
        let wanted = with_settings(with_servers(config, &wishes), &wishes);
        assert_eq!(shown(&wanted), "b=5 c=7");
        assert_eq!(wanted.pools[0].algorithm.name(), "random");
    }

    #[test]
    fn answers_are_known_again_by_what_is_asked() {
        let config = config::read("t", TEXT).unwrap();
        let known = |source: &str| AnswerState {
            source: source.to_owned(),
            found: vec![FoundState {
                address: "10.9.9.9:80".to_owned(),
                ..FoundState::default()
            }],
        };
        let answers = answers(&config, &[known("db.test:80"), known("other.test:80")]);
        assert_eq!(answers.len(), 1);
        let question = &config.pools[0].templates[0].question;
        assert_eq!(answers[question][0].address.to_string(), "10.9.9.9:80");
        let absent_state = AbsentState {
            pool: "web".to_owned(),
            name: "x".to_owned(),
            address: "10.9.9.8:80".to_owned(),
            source: "db.test:80".to_owned(),
            ..AbsentState::default()
        };
        let (pool, server) = absent(&config, &absent_state).unwrap();
        assert_eq!((&*pool, &server.found_by), ("web", &Some(question.clone())));
    }
}
