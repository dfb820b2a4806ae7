//! A listener's defaults, and the pools that it names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::file;
use super::super::mistake::{Mistakes, Wrong, nearest, quoted};
use super::super::tree::Path;
use super::super::{Limits, Listener, ProxyProtocol, Tcp};
use crate::ids::PoolId;

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool that a listener names.
pub(super) fn pool_index(
    listener: &file::Listener,
    ids: &HashMap<&str, usize>,
    pools: &[file::Pool],
    mistakes: &mut Mistakes,
) -> Option<usize> {
    let pool = listener.pool.as_ref()?;
    let index = ids.get(pool.value.as_str()).copied();
    // Without pools, that alone is the mistake, and it has been noted.
    if index.is_none() && !ids.is_empty() {
        let likely = if mistakes.is_full() {
            None
        } else {
            nearest(
                &pool.value,
                pools.iter().map(|pool| pool.name.text.as_str()),
            )
        };
        let remedy = match likely {
            Some(name) => format!("write {name}"),
            None => "write the name of one, or add it under pools".to_owned(),
        };
        let what = format!("no pool is called {}", quoted(&pool.value));
        let path = Path::Key(&Path::Root, "listeners");
        let path = Path::Key(&path, &listener.name.text);
        mistakes.add(
            pool.place,
            &Path::Key(&path, "pool"),
            Wrong::new(what, remedy),
        );
    }
    index
}

pub(super) fn checked_listener(listener: &file::Listener, pool: PoolId) -> Listener {
    Listener {
        name: Arc::from(listener.name.text.as_str()),
        bind: listener
            .bind
            .iter()
            .flatten()
            .map(|bound| bound.value.clone())
            .collect(),
        pool,
        sni: Vec::new(),
        proxy_protocol: ProxyProtocol::Off,
        allow: None,
        deny: Arc::from([]),
        limits: Limits::default(),
        header_timeout: HEADER_TIMEOUT,
        idle_timeout: listener.idle_timeout.unwrap_or(IDLE_TIMEOUT),
        half_close_timeout: listener.half_close_timeout.unwrap_or(HALF_CLOSE_TIMEOUT),
        tcp: Tcp::default(),
    }
}
