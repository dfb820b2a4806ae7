//! Connections speak of listeners, pools and servers by the numbers of the process before this one:
//! here they get this one's.

use super::past::Past;
use crate::handover::{ConnectionState, PhaseState};

/// Ids and tickets above this leave others no room; no process gives so many in its life.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 2;

/// A connection that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// It is of something that has no name.
    #[error("connection {connection} is of {what} {number}, which nobody has named")]
    Unnamed {
        /// Its id.
        connection: u64,
        /// The kind of thing.
        what: &'static str,
        /// What the other process calls it.
        number: u32,
    },
    /// Its id, or its ticket.
    #[error("connection {0} has a number that nobody gives")]
    Number(u64),
    /// Its place in a queue is another's.
    #[error("connection {0} waits in the place of another one")]
    Twice(u64),
}

impl Past {
    /// The same connection by this process's numbers. Of servers that it has tried, those that nobody
    /// knows any more are left out: nobody would try them again either.
    pub(super) fn translate(&self, state: ConnectionState) -> Result<ConnectionState, Misfit> {
        let unnamed = |what, number| Misfit::Unnamed {
            connection: state.id,
            what,
            number,
        };
        if state.id.max(ticket(&state).unwrap_or_default()) > NUMBER_MAX {
            return Err(Misfit::Number(state.id));
        }
        let listener = self.listeners.get(&state.listener);
        let (listener, _) = listener.ok_or_else(|| unnamed("listener", state.listener))?;
        let pool = |pool| match self.pools.get(&pool) {
            Some((id, _)) => Ok(number(id.index())),
            None => Err(unnamed("pool", pool)),
        };
        let known = |known: &u32| self.servers.get(known).map(|(id, _)| number(id.index()));
        let server = |server| known(&server).ok_or_else(|| unnamed("server", server));
        Ok(ConnectionState {
            listener: number(listener.index()),
            pool: state.pool.map(pool).transpose()?,
            server: state.server.map(server).transpose()?,
            tried: state.tried.iter().filter_map(known).collect(),
            ..state
        })
    }
}

/// Its place in its pool's queue, where it waits in one.
pub(super) fn ticket(state: &ConnectionState) -> Option<u64> {
    match state.phase {
        PhaseState::Queued { ticket, .. } => Some(ticket),
        _ => None,
    }
}

/// The place of an id as a connection's state has it.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("an id has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::ids::{ListenerId, PoolId, ServerId};
    use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};

    fn past() -> Past {
        let mut past = Past::default();
        let listener = Arc::new(ListenerTally::new(1));
        past.listeners.insert(40, (ListenerId::new(4), listener));
        let pool = Arc::new(PoolTally::new(1));
        past.pools.insert(50, (PoolId::new(5), pool));
        let server = Arc::new(ServerTally::new(1));
        past.servers.insert(60, (ServerId::new(6), server));
        past
    }

    #[test]
    fn numbers_become_our_own() {
        let state = ConnectionState {
            id: 7,
            listener: 40,
            pool: Some(50),
            server: Some(60),
            tried: vec![61, 60],
            ..ConnectionState::default()
        };
        let own = past().translate(state.clone()).unwrap();
        assert_eq!((own.id, own.listener), (7, 4));
        assert_eq!((own.pool, own.server), (Some(5), Some(6)));
        assert_eq!(own.tried, [6]);
    }

    #[test]
    fn numbers_that_leave_no_room_are_refused() {
        let queued = |ticket| PhaseState::Queued { ticket, until: 0 };
        for (id, phase) in [(u64::MAX, PhaseState::Relaying), (7, queued(u64::MAX))] {
            let state = ConnectionState {
                id,
                phase,
                listener: 40,
                ..ConnectionState::default()
            };
            let error = past().translate(state).unwrap_err();
            assert!(matches!(error, Misfit::Number(_)), "{error}");
        }
    }

    #[test]
    fn what_nobody_has_named_is_refused_in_words() {
        let state = |listener, pool, server| ConnectionState {
            id: 7,
            listener,
            pool,
            server,
            ..ConnectionState::default()
        };
        for (state, text) in [
            (state(41, None, None), "connection 7 is of listener 41"),
            (state(40, Some(51), None), "connection 7 is of pool 51"),
            (state(40, None, Some(61)), "connection 7 is of server 61"),
        ] {
            let error = past().translate(state).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
