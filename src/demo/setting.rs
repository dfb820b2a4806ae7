//! The configuration of a demonstration: an ordinary text that is read like anybody's file, so that
//! nothing about the listener, the pool and the checks is special.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::dials::server_name;
use crate::config::{self, Config, Mistakes};

/// Connections that one of the demonstration needs, with both its ends in this process: client,
/// two of evenkeel, server. As much again is for pipes, logs and the admin side.
const DESCRIPTORS_PER_CONNECTION: u64 = 8;
/// More would only make a mistake in the load costly.
const CONNECTIONS_MAX: u64 = 4096;

/// Most connections of the process, where it may have `limit` descriptors.
pub(super) fn connections_max(limit: u64) -> u64 {
    (limit / DESCRIPTORS_PER_CONNECTION).clamp(1, CONNECTIONS_MAX)
}

/// As a user would write it.
pub(super) fn text(listen: SocketAddr, servers: &[SocketAddr], connections_max: u64) -> String {
    let mut text = format!(
        "\
max_connections: {connections_max}
shutdown_timeout: 200ms
log:
  level: error
  access: off
listeners:
  demo:
    bind: \"{listen}\"
    pool: demo
pools:
  demo:
    algorithm: round_robin
    retries: 2
    health:
      type: http
      path: /health
      interval: 500ms
      timeout: 300ms
      rise: 1
      fall: 2
    servers:
"
    );
    for (index, address) in servers.iter().enumerate() {
        let name = server_name(index);
        // Writing to a String cannot fail.
        writeln!(text, "      - {{name: {name}, address: \"{address}\"}}").unwrap_or(());
    }
    text
}

/// Reads it.
pub(super) fn config(text: &str) -> Result<Config, Mistakes> {
    config::read("demo", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Algorithm;

    #[test]
    fn the_text_is_a_configuration_for_either_family() {
        for listen in ["127.0.0.1:8080", "[::1]:8080"] {
            let listen: SocketAddr = listen.parse().unwrap();
            let servers: Vec<_> = (1..=20)
                .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
                .collect();
            let config = config(&text(listen, &servers, 512)).unwrap();
            assert_eq!(config.listeners[0].bind, [listen.into()]);
            assert_eq!(config.pools[0].servers.len(), 20);
            assert_eq!(&*config.pools[0].servers[19].name, "s20");
            assert!(matches!(config.pools[0].algorithm, Algorithm::RoundRobin));
            assert_eq!(config.max_connections.map(|most| most.get()), Some(512));
        }
    }

    #[test]
    fn few_descriptors_make_few_connections() {
        assert_eq!(connections_max(0), 1);
        assert_eq!(connections_max(1024), 128);
        assert_eq!(connections_max(u64::MAX), CONNECTIONS_MAX);
    }
}
