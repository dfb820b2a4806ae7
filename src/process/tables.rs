//! What is asked at doors with each connection, made ready for it: who may come in, whose word is
//! believed, where names lead.
//!
//! Tables of a hundred thousand networks take milliseconds to make, so a listener keeps what it has
//! while the lists are the same. Knows a listener before and after a change, and nothing around it.

use std::sync::Arc;

use ipnet::IpNet;

use super::serving::ListenerSeat;
use crate::admission::{Access, Networks, ServerNames};
use crate::config::{Listener, ProxyProtocol, ServerPattern};
use crate::ids::PoolId;

/// A listener as it was.
type Before<'a> = Option<(&'a Listener, &'a ListenerSeat)>;

/// Who may come in at `next`.
pub(super) fn access(next: &Listener, before: Before<'_>) -> Arc<Access> {
    let is_same = |config: &Listener| config.allow == next.allow && config.deny == next.deny;
    match before {
        Some((config, seat)) if is_same(config) => Arc::clone(&seat.access),
        _ => Arc::new(Access {
            allow: next.allow.as_deref().map(networks),
            deny: networks(&next.deny),
        }),
    }
}

/// Whose PROXY headers are believed at `next`; `None` where there are none.
pub(super) fn trusted_proxies(next: &Listener, before: Before<'_>) -> Option<Arc<Networks>> {
    let ProxyProtocol::Accept { trusted } = &next.proxy_protocol else {
        return None;
    };
    match before {
        Some((config, seat)) if config.proxy_protocol == next.proxy_protocol => {
            seat.trusted_proxies.clone()
        }
        _ => Some(Arc::new(networks(trusted))),
    }
}

/// Where names lead; `None` where nobody looks at them. Pools are known by who they are, not by their
/// places in a config, so the table is made to be compared.
pub(super) fn server_names<'a>(
    routes: impl Iterator<Item = (&'a ServerPattern, PoolId)>,
    before: Option<&ListenerSeat>,
) -> Option<Arc<ServerNames>> {
    let mut routes = routes.peekable();
    routes.peek()?;
    let names = ServerNames::new(routes);
    let old = before.and_then(|seat| seat.server_names.as_ref());
    match old.filter(|old| ***old == names) {
        Some(same) => Some(Arc::clone(same)),
        None => Some(Arc::new(names)),
    }
}

fn networks(list: &[IpNet]) -> Networks {
    Networks::new(list.iter().copied())
}
