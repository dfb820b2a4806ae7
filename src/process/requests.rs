//! What the admin side asks for, granted or refused. Everything that changes what is served goes
//! through `apply` or `drains`; nothing here waits for a worker except on a thread of its own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use super::apply::Outcome;
use super::drains;
use super::start::Running;
use super::upgrade::Asker;
use crate::address::Address;
use crate::admin::request::{
    Answer, Ask, Done, Filter, NewServer, Refusal, Request, ServerChange, ServerName,
};
use crate::balance::Algorithm;
use crate::config::{self, Config, SERVERS_MAX, WEIGHT_MAX};
use crate::ids::{ConnectionId, ServerId};
use crate::pool::drain::Pace;
use crate::telemetry::events::Kind;
use crate::units::counted;
use crate::worker::{Command, Kill, Listing};

/// A worker tells of its connections in slices, between its other work.
const GATHER_TIMEOUT: Duration = Duration::from_secs(10);

type Reply = Box<dyn FnOnce(Answer) + Send>;

impl Running {
    /// Grants or refuses one request.
    pub(super) fn answer(&mut self, request: Request) {
        let Request { ask, reply } = request;
        if self.is_refused_meanwhile(&ask) {
            let text = "an upgrade is under way".to_owned();
            return reply(Err(Refusal::Unavailable(text)));
        }
        let answer = match ask {
            Ask::Connections(filter) => return self.list(&filter, reply),
            Ask::Kill(connections) => return self.kill(connections, reply),
            Ask::Upgrade(program) => {
                return self.begin_upgrade(program.as_deref(), Asker::new(reply));
            }
            Ask::ChangeServer(name, change) => self.change_server(&name, &change),
            Ask::AddServer { pool, server } => self.add_server(&pool, server),
            Ask::RemoveServer(name, pace) => self.remove_server(&name, pace),
            Ask::ChangeAlgorithm { pool, algorithm } => self.change_algorithm(&pool, algorithm),
            Ask::Plan(file) => self.plan(file).map(Done::Plan),
            Ask::Reload(reload) => self.reload(reload).map(Done::Plan),
            Ask::Confirm => self.confirm(),
            Ask::Leave(has_left) => {
                self.leave_or_join(has_left);
                Ok(Done::Changed)
            }
        };
        reply(answer);
    }

    /// Engines that send traffic here see it at once; nothing that is served changes.
    fn leave_or_join(&mut self, has_left: bool) {
        if std::mem::replace(&mut self.has_left, has_left) == has_left {
            return;
        }
        // Nothing else: the rest may be in the middle of a change.
        self.public.board.amend(|roster| roster.has_left = has_left);
        let active = self.threads.ledger.process_connections();
        let connections = counted(active.into(), "connection");
        match has_left {
            true => self.tell(
                Kind::Left,
                format!("left: not ready from now on, {connections} and new ones go on"),
            ),
            false => self.tell(Kind::Joined, "joined: no longer kept from being ready"),
        }
    }

    fn change_server(&mut self, name: &ServerName, change: &ServerChange) -> Answer {
        let (pool, server) = self.places(name)?;
        if let Some(weight) = change.weight {
            self.change_weight(name, (pool, server), weight)?;
        }
        if let Some((standing, pace)) = change.standing {
            self.change_standing(name, standing, pace)?;
        }
        Ok(Done::Changed)
    }

    fn change_weight(
        &mut self,
        name: &ServerName,
        (pool, server): (usize, usize),
        weight: u32,
    ) -> Result<(), Refusal> {
        if weight > WEIGHT_MAX {
            let text = format!("the weight {weight} is over {WEIGHT_MAX}");
            return Err(Refusal::Invalid(text));
        }
        let mut wanted = self.serving.config.clone();
        let before = std::mem::replace(&mut wanted.pools[pool].servers[server].weight, weight);
        if before == weight {
            return Ok(());
        }
        if wanted.pools[pool].servers.iter().all(|s| s.weight == 0) {
            let text = format!(
                "pool {} would have no server with a weight: drain the server instead",
                name.pool
            );
            return Err(Refusal::Conflict(text));
        }
        let ServerName { pool, server } = name;
        let text = format!("server {pool}/{server}: weight {before} -> {weight}");
        self.adopt(wanted, Pace::PATIENT, text)
    }

    fn change_algorithm(&mut self, pool: &str, algorithm: Algorithm) -> Answer {
        let place = self.pool_place(pool)?;
        let mut wanted = self.serving.config.clone();
        let before = std::mem::replace(&mut wanted.pools[place].algorithm, algorithm);
        if before != algorithm {
            let text = format!("pool {pool}: algorithm {before} -> {algorithm}");
            self.adopt(wanted, Pace::PATIENT, text)?;
        }
        Ok(Done::Changed)
    }

    fn add_server(&mut self, pool: &str, server: NewServer) -> Answer {
        let place = self.pool_place(pool)?;
        let name: Arc<str> = match server.name {
            Some(name) => name.into(),
            None => server.address.to_string().into(),
        };
        let mut wanted = self.serving.config.clone();
        if self.serving.servers().count() >= SERVERS_MAX {
            let text = format!("there are {SERVERS_MAX} servers already, which is the most");
            return Err(Refusal::Conflict(text));
        }
        let servers = &mut wanted.pools[place].servers;
        if servers.iter().any(|other| other.name == name) {
            return Err(Refusal::Conflict(format!(
                "there is a server {pool}/{name} already"
            )));
        }
        if let Some(other) = servers.iter().find(|other| other.address == server.address) {
            let text = format!(
                "{} is the server {pool}/{} already",
                server.address, other.name
            );
            return Err(Refusal::Conflict(text));
        }
        if server.weight > WEIGHT_MAX {
            let text = format!("the weight {} is over {WEIGHT_MAX}", server.weight);
            return Err(Refusal::Invalid(text));
        }
        if let Some(listener) = self.serving.circle(place, &server.address) {
            let text = format!(
                "{} leads back to pool {pool} by listener {listener}: take another address",
                server.address
            );
            return Err(Refusal::Conflict(text));
        }
        servers.push(config::Server {
            name: Arc::clone(&name),
            address: server.address.clone(),
            weight: server.weight,
            max_connections: server.max_connections,
            backup: server.backup,
            found_by: None,
        });
        self.adopt(wanted, Pace::PATIENT, added(pool, &name, &server.address))?;
        self.await_newcomer(place, &name);
        Ok(Done::Changed)
    }

    /// Whoever adds a server wants to hear whether it is any good.
    fn await_newcomer(&mut self, pool: usize, name: &Arc<str>) {
        let serving = self.serving.clone();
        let is_checked = serving.config.pools[pool].health.is_some();
        let seat = serving.pools[pool].servers.iter().find(|s| s.name == *name);
        if let Some(seat) = seat.filter(|_| is_checked)
            && seat.tally.checkup().findings().is_up.is_none()
        {
            self.await_answers(&[seat.id], &serving);
        }
    }

    fn remove_server(&mut self, name: &ServerName, pace: Pace) -> Answer {
        let (place, server) = self.places(name)?;
        let mut wanted = self.serving.config.clone();
        let removed = wanted.pools[place].servers.remove(server);
        let ServerName { pool, server } = name;
        if let Some(source) = removed.found_by {
            let text = format!(
                "{pool}/{server} comes from {source} and would be back at once: change that, or \
                 take the server into maintenance"
            );
            return Err(Refusal::Conflict(text));
        }
        let (wanted, weights) = self.with_found_still(&wanted);
        let servers = &wanted.pools[place].servers;
        // To end its connections while new ones go to the same address is not what anyone wants.
        let same = servers.iter().find(|s| s.address == removed.address);
        if let Some(source) = same.and_then(|same| same.found_by.as_ref()) {
            let text = format!(
                "{source} brings {} as well, which would go on under another name: change that, \
                 or take {pool}/{server} into maintenance",
                removed.address
            );
            return Err(Refusal::Conflict(text));
        }
        if servers.iter().all(|other| other.weight == 0) {
            let text = format!(
                "{pool}/{server} is the last server with a weight in its pool: drain it instead"
            );
            return Err(Refusal::Conflict(text));
        }
        let text = format!("server {pool}/{server} removed{}", drains::in_words(pace));
        self.adopt(wanted, pace, text)?;
        self.note_weights(weights);
        Ok(Done::Changed)
    }

    /// Serves a config that somebody made without the file.
    fn adopt(&mut self, wanted: Config, pace: Pace, text: String) -> Result<(), Refusal> {
        match self.apply(wanted, pace) {
            Ok(Outcome::Applied) => {
                self.publish();
                self.tell(Kind::Changed, text);
                Ok(())
            }
            Ok(Outcome::Stopping) => Err(Refusal::Unavailable("evenkeel is stopping".to_owned())),
            Err(error) => Err(Refusal::Invalid(error.to_string())),
        }
    }

    fn pool_place(&self, name: &str) -> Result<usize, Refusal> {
        let pools = &self.serving.config.pools;
        let place = pools.iter().position(|pool| &*pool.name == name);
        place.ok_or_else(|| Refusal::NotFound(format!("there is no pool {name}")))
    }

    /// Where a server is: its pool's place, and its own in the pool.
    fn places(&self, name: &ServerName) -> Result<(usize, usize), Refusal> {
        let pool = self.pool_place(&name.pool)?;
        let servers = &self.serving.config.pools[pool].servers;
        let server = servers
            .iter()
            .position(|server| *server.name == *name.server);
        let ServerName {
            pool: pool_name,
            server: server_name,
        } = name;
        let server = server.ok_or_else(|| {
            Refusal::NotFound(format!("there is no server {pool_name}/{server_name}"))
        })?;
        Ok((pool, server))
    }

    /// Asks each worker for its connections.
    fn list(&self, filter: &Filter, reply: Reply) {
        let servers = match self.wanted_servers(filter) {
            Ok(servers) => servers,
            Err(refusal) => return reply(Err(refusal)),
        };
        // Who has no server yet is at none of that name.
        let pool = filter.pool.as_deref().filter(|_| filter.server.is_none());
        let seats = &self.serving.pools;
        let pool = pool.and_then(|name| seats.iter().find(|seat| *seat.name == *name));
        let pool = pool.map(|seat| seat.id);
        let (sender, receiver) = unbounded();
        self.tell_all(|| {
            Command::List(Listing {
                servers: servers.clone(),
                pool,
                reply: sender.clone(),
            })
        });
        drop(sender);
        gather(receiver, reply, Done::Connections);
    }

    /// The servers that a filter means, those that have left included; `None` is all connections.
    fn wanted_servers(&self, filter: &Filter) -> Result<Option<Arc<[ServerId]>>, Refusal> {
        if *filter == Filter::default() {
            return Ok(None);
        }
        if let Some(pool) = &filter.pool
            && !self.serving.leaving.iter().any(|l| *l.pool == **pool)
        {
            self.pool_place(pool)?;
        }
        let seated = self
            .serving
            .servers()
            .map(|(pool, server)| (&pool.name, server));
        let leaving = self.serving.leaving.iter();
        let leaving = leaving.map(|leaving| (&leaving.pool, &leaving.server));
        let is_meant =
            |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        let found: Vec<_> = seated
            .chain(leaving)
            .filter(|(pool, server)| {
                is_meant(&filter.pool, pool) && is_meant(&filter.server, &server.name)
            })
            .map(|(_, server)| server.id)
            .collect();
        match &filter.server {
            Some(server) if found.is_empty() => {
                Err(Refusal::NotFound(format!("there is no server {server}")))
            }
            _ => Ok(Some(found.into())),
        }
    }

    fn kill(&self, connections: Vec<ConnectionId>, reply: Reply) {
        let connections: Arc<[ConnectionId]> = connections.into();
        let (sender, receiver) = unbounded();
        self.tell_all(|| {
            Command::Kill(Kill {
                connections: Arc::clone(&connections),
                reply: sender.clone(),
            })
        });
        drop(sender);
        let events = self.public.events.clone();
        gather(receiver, reply, move |killed: Vec<ConnectionId>| {
            if !killed.is_empty() {
                let text = format!("{} killed", counted(killed.len() as u64, "connection"));
                log::info!("{text}");
                events.add(Kind::Killed, text);
            }
            Done::Killed(killed)
        });
    }
}

fn added(pool: &str, name: &str, address: &Address) -> String {
    format!("server {pool}/{name} added ({address})")
}

/// Collects what all workers say, on a thread of its own: this one has signals to listen to. How
/// many such threads there can be is bounded by the requests that the admin side has under way.
fn gather<T: Send + 'static>(
    parts: Receiver<Vec<T>>,
    reply: Reply,
    done: impl FnOnce(Vec<T>) -> Done + Send + 'static,
) {
    let body = move || {
        let deadline = crossbeam_channel::after(GATHER_TIMEOUT);
        let mut all = Vec::new();
        loop {
            crossbeam_channel::select! {
                recv(parts) -> part => match part {
                    Ok(part) => all.extend(part),
                    // Each worker has answered, and let go of its sender.
                    Err(_) => return reply(Ok(done(all))),
                },
                recv(deadline) -> _ => {
                    let text = "a worker takes long to answer: try again".to_owned();
                    return reply(Err(Refusal::Unavailable(text)));
                }
            }
        }
    };
    // Without a thread the reply is dropped, which counts as "unavailable".
    if let Err(error) = thread::Builder::new().name("gather".into()).spawn(body) {
        log::warn!("cannot start a thread: {error}");
    }
}
