//! Connections speak of listeners, pools and servers by the numbers of the process before this one:
//! here they get this one's.

use super::past::Past;
use crate::handover::ConnectionState;

/// A connection that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("connection {connection} is of {what} {number}, which nobody has named")]
pub struct Unnamed {
    connection: u64,
    what: &'static str,
    number: u32,
}

impl Past {
    /// The same connection by this process's numbers. Of servers that it has tried, those that nobody
    /// knows any more are left out: nobody would try them again either.
    pub(super) fn translate(&self, state: ConnectionState) -> Result<ConnectionState, Unnamed> {
        let unnamed = |what, number| Unnamed {
            connection: state.id,
            what,
            number,
        };
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
