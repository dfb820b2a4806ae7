//! Bringing connections to their end, for whatever reason: an operator drains a server or takes it
//! into maintenance, it has left the config, it went down in a pool that says `on_down: close`. One
//! mechanism, `pool::drain`; here is who begins it, who looks after it, and when ids are forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::outlook::Fate;
use super::serving::{ServerSeat, Serving};
use super::start::Running;
use super::transition::Doors;
use crate::admin::request::{Refusal, ServerName};
use crate::clock::Now;
use crate::config::OnDown;
use crate::end::End;
use crate::ids::ServerId;
use crate::pool::drain::{Drain, Pace, Scope};
use crate::roster::Standing;
use crate::telemetry::events::Kind;
use crate::units::{counted, show_duration};
use crate::worker::Command;

/// A server or listener without connections is forgotten this long after its last one: records of
/// it may still be on their way to the access log, and a server that returns within this time finds
/// all its counts as they were.
const FORGET_AFTER: Duration = Duration::from_secs(60);

impl ServerSeat {
    /// Begins a drain, in place of one that may be under way.
    pub(super) fn begin(&mut self, drain: Drain) -> Arc<Drain> {
        let drain = Arc::new(drain);
        if let Some(before) = self.drain.replace(Arc::clone(&drain)) {
            before.cancel();
        }
        drain
    }

    /// Ends the drain where there is one.
    pub(super) fn end_drain(&mut self) {
        if let Some(drain) = self.drain.take() {
            drain.cancel();
        }
    }

    /// Whether a drain has nothing left to do.
    fn is_drained(&self) -> bool {
        self.drain.is_some() && self.tally.connections() == 0
    }
}

impl Running {
    /// Does what an operator wants of a server.
    pub(super) fn change_standing(
        &mut self,
        name: &ServerName,
        standing: Standing,
        pace: Pace,
    ) -> Result<(), Refusal> {
        let now = Now::read();
        let mut next = self.serving.clone();
        let seat = seat_of(&mut next, name)?;
        let pace_before = seat.drain.as_ref().map(|drain| drain.pace());
        let is_draining = standing == Standing::Draining && seat.standing == standing;
        if is_draining && pace == Pace::PATIENT && pace_before.is_some() {
            // Whoever asks again, to wait for it, does not mean to take its pace away.
            return Ok(());
        }
        let is_news = seat.standing != standing || pace_before.is_some_and(|p| p != pace);
        seat.standing = standing;
        let left = seat.tally.connections();
        let begun = match standing {
            Standing::Ready => {
                seat.end_drain();
                None
            }
            Standing::Draining | Standing::Maintenance => {
                let scope = Scope::Server(seat.id);
                Some(seat.begin(Drain::new(scope, End::Drained, pace, left, now)))
            }
        };
        self.commit(next, &Doors::default(), Vec::new());
        if let Some(drain) = begun {
            self.send_drain(&drain);
        }
        self.publish();
        if is_news {
            let ServerName { pool, server } = name;
            let connections = counted(left.into(), "connection");
            let what = match standing {
                Standing::Ready => "ready".to_owned(),
                Standing::Draining => format!("draining {connections}{}", in_words(pace)),
                Standing::Maintenance => format!("in maintenance, {connections}{}", in_words(pace)),
            };
            self.tell(Kind::ServerState, format!("server {pool}/{server}: {what}"));
        }
        if standing != Standing::Ready {
            self.tell_if_none_is_left(&name.pool);
        }
        Ok(())
    }

    /// Whoever takes the last server of a pool out should hear of it at once.
    fn tell_if_none_is_left(&self, pool: &str) {
        let roster = self.public.board.read();
        let Some(shown) = roster.pool(pool).filter(|shown| !shown.has_usable()) else {
            return;
        };
        let configs = &self.serving.config.pools;
        let config = configs.iter().find(|config| &*config.name == pool);
        // Whom the operator has taken out is not used, come what may.
        let fate = match shown.is_failing_open() {
            true => Fate::of,
            false => Fate::closed,
        };
        let fate = config.map_or(Fate::Reset, fate);
        log::error!("pool {pool} has no server left: {fate}");
    }

    /// A server is down: its connections end where its pool says so.
    pub(super) fn close_if_down(&mut self, id: ServerId) {
        let Some((pool, place)) = self.serving.place_of(id) else {
            return;
        };
        if self.serving.config.pools[pool].on_down == OnDown::Keep {
            return;
        }
        let server = &mut self.serving.pools[pool].servers[place];
        let left = server.tally.connections();
        let scope = Scope::Server(id);
        let drain = Drain::new(scope, End::ServerDown, Pace::AT_ONCE, left, Now::read());
        let drain = server.begin(drain);
        self.send_drain(&drain);
        self.is_unpublished = true;
    }

    /// A server is up: what its being down has begun is over.
    pub(super) fn spare_if_up(&mut self, id: ServerId) {
        let Some((pool, place)) = self.serving.place_of(id) else {
            return;
        };
        let server = &mut self.serving.pools[pool].servers[place];
        if server
            .drain
            .as_ref()
            .is_some_and(|drain| drain.end() == End::ServerDown)
        {
            server.end_drain();
            self.is_unpublished = true;
        }
    }

    /// Has the workers carry a drain out, where it closes anything at all.
    pub(super) fn send_drain(&self, drain: &Arc<Drain>) {
        let pace = drain.pace();
        if pace.rate.is_some() || pace.deadline.is_some() {
            self.tell_all(|| Command::Drain(Arc::clone(drain)));
        }
    }

    /// Looks after drains that are through, and after those who have left.
    pub(super) fn look_after_drains(&mut self) {
        let ended = self.end_drains();
        let has_left = self.note_empty(Now::read());
        self.forget(Now::read());
        for server in &ended {
            self.tell(
                Kind::ServerState,
                format!("server {server}: no connection left"),
            );
        }
        if has_left || !ended.is_empty() || self.is_unpublished {
            self.publish();
        }
    }

    /// Ends the drains of servers that have no connection left; who they are.
    fn end_drains(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for pool in &mut self.serving.pools {
            for server in pool.servers.iter_mut().filter(|server| server.is_drained()) {
                server.end_drain();
                ended.push(format!("{}/{}", pool.name, server.name));
            }
        }
        for leaving in &mut self.serving.leaving {
            if leaving.server.is_drained() {
                let had_some = leaving
                    .server
                    .drain
                    .as_ref()
                    .is_some_and(|d| d.began_with() > 0);
                leaving.server.end_drain();
                let name = format!("{}/{} (removed)", leaving.pool, leaving.server.name);
                ended.extend(had_some.then_some(name));
            }
        }
        ended
    }

    /// Notes who of those that have left has no connection any more; whether there is anyone new.
    pub(super) fn note_empty(&mut self, now: Now) -> bool {
        let mut has_news = false;
        for leaving in &mut self.serving.leaving {
            let is_empty = leaving.server.tally.connections() == 0;
            has_news |= is_empty != leaving.empty_since.is_some();
            leaving.empty_since = is_empty.then(|| leaving.empty_since.unwrap_or(now));
        }
        for left in &mut self.serving.left_listeners {
            let is_empty = left.listener.tally.connections() == 0;
            left.empty_since = is_empty.then(|| left.empty_since.unwrap_or(now));
        }
        has_news
    }

    /// Forgets the ids of those who have been without connections for long.
    fn forget(&mut self, now: Now) {
        let is_over =
            |since: Option<Now>| since.is_some_and(|since| now.since(since) >= FORGET_AFTER);
        let leaving = self
            .serving
            .leaving
            .extract_if(.., |l| is_over(l.empty_since));
        let servers: Vec<_> = leaving.map(|leaving| leaving.server.id).collect();
        let left = self
            .serving
            .left_listeners
            .extract_if(.., |l| is_over(l.empty_since));
        let listeners: Vec<_> = left.map(|left| left.listener.id).collect();
        // A worker that was told of a pool's going sends nobody there, and says of nobody that it has:
        // only records that were on their way had its name.
        let pools = self
            .serving
            .left_pools
            .extract_if(.., |(_, since)| is_over(Some(*since)));
        for (pool, _) in pools {
            self.public.names.forget_pool(pool);
        }
        if servers.is_empty() && listeners.is_empty() {
            return;
        }
        for server in &servers {
            self.public.names.forget_server(*server);
        }
        self.serving.free(&servers);
        for listener in &listeners {
            self.public.names.forget_listener(*listener);
        }
        self.tell_all(|| Command::Forget {
            listeners: listeners.clone(),
            servers: servers.clone(),
        });
    }
}

/// How connections end, as an addition to a sentence; empty where nobody is cut.
pub(super) fn in_words(pace: Pace) -> String {
    let rate = pace.rate.map(|rate| {
        let quiet = show_duration(pace.quiet);
        format!("those quiet for {quiet} closed at {rate}")
    });
    let deadline = pace.deadline.map(|deadline| match deadline {
        Duration::ZERO => "all closed at once".to_owned(),
        deadline => format!("the rest closed in {}", show_duration(deadline)),
    });
    let words: Vec<_> = rate.into_iter().chain(deadline).collect();
    match words.is_empty() {
        true => String::new(),
        false => format!(", {}", words.join(", ")),
    }
}

fn seat_of<'a>(serving: &'a mut Serving, name: &ServerName) -> Result<&'a mut ServerSeat, Refusal> {
    let ServerName { pool, server } = name;
    serving
        .server_mut(pool, server)
        .ok_or_else(|| Refusal::NotFound(format!("there is no server {pool}/{server}")))
}
