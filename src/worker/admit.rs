//! Who is let in, and what a connection holds for it: the one place that decides, before any server
//! is touched.
//!
//! At accept: whether a peer may connect that is to send a PROXY header, the process's maximum, then
//! the listener's. By the client's address: `allow` and `deny`, how often it comes, how many it has.
//! That is at accept, too, unless the address stands in a PROXY header; then it is once that has been
//! read. What one step has taken is given back where a later one says no, so a connection that is
//! turned away holds nothing.
//!
//! A connection that was let in holds a place in the ledger and one at its listener, and maybe one
//! of its source's (`Marks::place`). It takes them along to another worker.

use super::Worker;
use super::accept::Accepted;
use super::command::Listener;
use super::token::Key;
use crate::address::Peer;
use crate::admission::{Place, Refused};
use crate::clock::Now;
use crate::end::End;
use crate::ids::ListenerId;

impl Worker {
    /// Lets a new connection in. Its place of its source's is noted on it.
    ///
    /// # Errors
    /// What the connection that is turned away ends as; it holds nothing.
    pub(super) fn admit(&self, accepted: &mut Accepted, now: Now) -> Result<(), End> {
        let listener = self.listeners.find(accepted.listener);
        if listener.is_some_and(|listener| !listener.rules.trusts(accepted.address)) {
            return Err(End::BadProxyHeader);
        }
        if !self.pools.ledger().admit(self.index) {
            self.counters.over_process_max.add(1);
            return Err(End::Limit);
        }
        self.admit_at_listener(accepted, now).inspect_err(|_| {
            self.pools.ledger().leave(self.index);
        })
    }

    fn admit_at_listener(&self, accepted: &mut Accepted, now: Now) -> Result<(), End> {
        let Some(listener) = self.listeners.find(accepted.listener) else {
            debug_assert!(false, "a door's listener is there before the door opens");
            return Ok(());
        };
        let rules = &listener.rules;
        if !listener.tally.enter(rules.max_connections) {
            listener.tally.workers()[self.index].over_limits.add(1);
            return Err(End::Limit);
        }
        accepted.has_header = rules.trusted_proxies.is_some();
        if accepted.has_header {
            return Ok(());
        }
        let place = ask(listener, self.index, accepted.address, now);
        accepted.place = place.inspect_err(|_| listener.tally.leave())?;
        Ok(())
    }

    /// Asks the rules about a connection of this worker whose client is known by now: its PROXY header
    /// has been read. To be called once, and only at a listener where headers are awaited.
    ///
    /// # Errors
    /// What the connection is to end as; what it holds is given back where it is closed.
    pub(super) fn admit_client(&mut self, key: Key, now: Now) -> Result<(), End> {
        let Some(connection) = self.table.find(key) else {
            return Ok(());
        };
        debug_assert!(connection.marks.place.is_none(), "the rules are asked once");
        let Some(listener) = self.listeners.find(connection.listener) else {
            return Ok(());
        };
        let client = connection.client_address;
        connection.marks.place = ask(listener, self.index, client, now)?;
        Ok(())
    }

    /// Gives back what a connection of this worker holds that was let in.
    pub(super) fn let_go(
        &self,
        listener: ListenerId,
        client: Peer,
        place: Option<Place>,
        now: Now,
    ) {
        self.pools.ledger().leave(self.index);
        let Some(listener) = self.listeners.find(listener) else {
            // Handed over to a worker that stopped before it heard of the listener: so does the
            // process, and nobody counts any more.
            return;
        };
        listener.tally.leave();
        if let (Some(address), Some(place)) = (client.ip(), place) {
            listener.tally.sources().release(address, place, now);
        }
    }
}

/// The rules about the client's address, asked by one of the workers. Whoever comes by a unix socket
/// has none, and comes in.
fn ask(listener: &Listener, worker: usize, client: Peer, now: Now) -> Result<Option<Place>, End> {
    let Some(address) = client.ip() else {
        return Ok(None);
    };
    let Listener { rules, tally, .. } = listener;
    if !rules.access.admits(address) {
        return Err(End::Denied);
    }
    let place = tally.sources().admit(address, &rules.per_source, now);
    place.map_err(|refused| {
        tally.workers()[worker].over_limits.add(1);
        match refused {
            Refused::Rate => End::RateLimited,
            Refused::Full => End::Limit,
        }
    })
}
