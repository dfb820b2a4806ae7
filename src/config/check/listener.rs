//! A listener's defaults, the pools that it names, and whom it believes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::super::address::Bind;
use super::super::file;
use super::super::mistake::{Mistakes, Place, Wrong, nearest, quoted};
use super::super::tree::{Located, Path};
use super::super::{Limits, Listener, ProxyProtocol, Route, ServerPattern, Tcp};
use crate::ids::PoolId;

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
pub(in crate::config) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pools by their names.
#[derive(Debug)]
pub(super) struct Pools<'f> {
    /// The index of each.
    pub(super) ids: &'f HashMap<&'f str, usize>,
    pub(super) pools: &'f [file::Pool],
}

impl Pools<'_> {
    /// The pool of that name; `path` is the way to where it is named.
    pub(super) fn id(
        &self,
        name: &Located<String>,
        path: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> Option<PoolId> {
        let index = self.ids.get(name.value.as_str()).copied();
        // Without pools, that alone is the mistake, and it has been noted.
        if index.is_none() && !self.ids.is_empty() {
            let what = format!("no pool is called {}", quoted(&name.value));
            let remedy = match self.likely(&name.value, mistakes) {
                Some(name) => format!("write {name}"),
                None => "write the name of one, or add it under pools".to_owned(),
            };
            mistakes.add(name.place, path, Wrong::new(what, remedy));
        }
        index.map(PoolId::new)
    }

    fn likely(&self, name: &str, mistakes: &Mistakes) -> Option<&str> {
        let names = self.pools.iter().map(|pool| pool.name.text.as_str());
        (!mistakes.is_full())
            .then(|| nearest(name, names))
            .flatten()
    }
}

/// The listener with its defaults, and what is wrong inside it.
pub(super) fn checked_listener(
    listener: &file::Listener,
    pools: &Pools<'_>,
    mistakes: &mut Mistakes,
) -> Option<Listener> {
    let path = Path::Key(&Path::Root, "listeners");
    let path = Path::Key(&path, &listener.name.text);
    let pool = listener.pool.as_ref();
    let pool = pool.and_then(|name| pools.id(name, &Path::Key(&path, "pool"), mistakes));
    let sni = routes(listener, pools, &path, mistakes);
    let proxy_protocol = proxy_protocol(listener, &path, mistakes);
    let bind = listener.bind.iter().flatten();
    Some(Listener {
        name: Arc::from(listener.name.text.as_str()),
        bind: bind.flat_map(|bound| bound.value.addresses()).collect(),
        pool: pool?,
        sni,
        proxy_protocol,
        allow: listener.allow.as_ref().map(set),
        deny: listener.deny.as_ref().map(set).unwrap_or_default(),
        limits: limits(listener),
        header_timeout: listener.header_timeout.unwrap_or(HEADER_TIMEOUT),
        idle_timeout: listener.idle_timeout.unwrap_or(IDLE_TIMEOUT),
        half_close_timeout: listener.half_close_timeout.unwrap_or(HALF_CLOSE_TIMEOUT),
        tcp: tcp(listener.tcp.as_ref()),
    })
}

/// Each pattern once, with its pool.
fn routes(
    listener: &file::Listener,
    pools: &Pools<'_>,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Route> {
    let path = Path::Key(path, "sni");
    let mut seen: HashMap<&ServerPattern, Place> = HashMap::new();
    let mut routes = Vec::with_capacity(listener.sni.len());
    for route in &listener.sni {
        let (place, path) = (route.key.place, Path::Key(&path, &route.key.text));
        let pool = route.pool.as_ref();
        let pool = pool.and_then(|name| pools.id(name, &path, mistakes));
        let Some(names) = &route.names else { continue };
        if let Some(first) = seen.insert(names, place) {
            let what = format!("{names} is in {} already", first.mention(place));
            mistakes.add(place, &path, Wrong::new(what, "remove one of the two"));
        }
        routes.extend(pool.map(|pool| Route {
            names: names.clone(),
            pool,
        }));
    }
    routes
}

/// Who sends headers is believed whatever stands in them, so that it must be said who may.
fn proxy_protocol(
    listener: &file::Listener,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> ProxyProtocol {
    // A socket's file says who may open it.
    let is_ip = |bound: &Located<Bind>| !matches!(bound.value, Bind::Unix(_));
    let needs_trust = listener.bind.iter().flatten().any(is_ip);
    let trusted = listener.trusted_proxies.as_ref();
    match (&listener.proxy_protocol, trusted) {
        (Some(accept), None) if accept.value && needs_trust => {
            let what = "without trusted_proxies everybody could forge an address";
            let remedy = "write trusted_proxies: and the networks of your proxies \
                          ([0.0.0.0/0, \"::/0\"] for everybody)";
            let path = Path::Key(path, "proxy_protocol");
            mistakes.add(accept.place, &path, Wrong::new(what, remedy));
        }
        // `off` beside them is how one switches it off for a while.
        (Some(accept), Some(trusted)) if !accept.value && !listener.is_proxy_protocol_written => {
            let what = "trusted_proxies has no effect without proxy_protocol";
            let remedy = "write proxy_protocol: accept beside it or remove the key";
            let path = Path::Key(path, "trusted_proxies");
            mistakes.add(trusted.place, &path, Wrong::new(what, remedy));
        }
        _ => {}
    }
    match &listener.proxy_protocol {
        Some(accept) if accept.value => ProxyProtocol::Accept {
            trusted: trusted.map(set).unwrap_or_default(),
        },
        _ => ProxyProtocol::Off,
    }
}

/// In order and each once: two files that mean the same are the same.
fn set(networks: &Located<Vec<IpNet>>) -> Arc<[IpNet]> {
    let mut networks = networks.value.clone();
    networks.sort_unstable();
    networks.dedup();
    Arc::from(networks)
}

fn limits(listener: &file::Listener) -> Limits {
    let default = Limits::default();
    let prefixes = listener.per_ip.as_ref();
    let ipv4_prefix = prefixes.and_then(|prefixes| prefixes.ipv4_prefix);
    let ipv6_prefix = prefixes.and_then(|prefixes| prefixes.ipv6_prefix);
    Limits {
        max_connections: listener.max_connections,
        max_connections_per_ip: listener.max_connections_per_ip,
        connection_rate_per_ip: listener.connection_rate_per_ip,
        ipv4_prefix: ipv4_prefix.unwrap_or(default.ipv4_prefix),
        ipv6_prefix: ipv6_prefix.unwrap_or(default.ipv6_prefix),
    }
}

fn tcp(written: Option<&file::Tcp>) -> Tcp {
    let default = Tcp::default();
    let Some(written) = written else {
        return default;
    };
    Tcp {
        keepalive: written.keepalive,
        user_timeout: written.user_timeout,
        fast_open: written.fast_open.unwrap_or(default.fast_open),
        backlog: written.backlog.unwrap_or(default.backlog),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Keepalive, read};

    /// The listener `web` with these keys besides `pool`.
    fn text(keys: &str) -> String {
        format!(
            "listeners: {{web: {{{keys}, pool: web}}}}\n\
             pools: {{web: {{servers: [127.0.0.1:9001]}}, other: {{servers: [127.0.0.1:9002]}}}}"
        )
    }

    fn listener(keys: &str) -> Listener {
        read("x", &text(keys)).unwrap().listeners.remove(0)
    }

    /// What is wrong, without places.
    fn mistakes(keys: &str) -> Vec<String> {
        let mistakes = read("x", &text(keys)).unwrap_err();
        let shown = mistakes.shown.iter();
        shown.map(ToString::to_string).collect()
    }

    fn nets(texts: &[&str]) -> Arc<[IpNet]> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_key_has_its_effect() {
        let listener = listener(
            "bind: ['*:7000-7001', unix:@x], sni: {DB.example.com.: other, '*.example.com': web},
             proxy_protocol: accept, trusted_proxies: 10.0.0.0/8, allow: ['::1', 10.0.0.0/8],
             deny: [192.0.2.1, 192.0.2.1/32], max_connections: 10, max_connections_per_ip: 2,
             connection_rate_per_ip: 20/s, per_ip: {ipv4_prefix: 24, ipv6_prefix: 56},
             header_timeout: 1s, idle_timeout: 2s, half_close_timeout: 3s,
             tcp: {keepalive: {idle: 60s, interval: 10s, probes: 5}, user_timeout: 30s,
                   fast_open: true, backlog: 9}",
        );
        let count = |n| std::num::NonZeroU32::new(n).unwrap();
        let bind: Vec<_> = listener.bind.iter().map(ToString::to_string).collect();
        let expected = ["0.0.0.0:7000", "0.0.0.0:7001", "[::]:7000", "[::]:7001"];
        assert_eq!(
            (&bind[..4], &*bind[4]),
            (&expected.map(String::from)[..], "unix:@x")
        );
        let pools: Vec<_> = listener.pools().map(PoolId::index).collect();
        assert_eq!(pools, [0, 1, 0]);
        let names = ServerPattern::Exact(Arc::from("db.example.com"));
        assert_eq!(listener.sni[0].names, names);
        let names = ServerPattern::Below(Arc::from("example.com"));
        assert_eq!(listener.sni[1].names, names);
        let trusted = nets(&["10.0.0.0/8"]);
        assert_eq!(listener.proxy_protocol, ProxyProtocol::Accept { trusted });
        assert_eq!(listener.allow, Some(nets(&["10.0.0.0/8", "::1/128"])));
        assert_eq!(listener.deny, nets(&["192.0.2.1/32"]));
        let limits = Limits {
            max_connections: Some(count(10)),
            max_connections_per_ip: Some(count(2)),
            connection_rate_per_ip: Some("20/s".parse().unwrap()),
            ipv4_prefix: 24,
            ipv6_prefix: 56,
        };
        assert_eq!(listener.limits, limits);
        let seconds = Duration::from_secs;
        assert_eq!(listener.header_timeout, seconds(1));
        assert_eq!(listener.idle_timeout, seconds(2));
        assert_eq!(listener.half_close_timeout, seconds(3));
        let tcp = Tcp {
            keepalive: Some(Keepalive {
                idle: seconds(60),
                interval: Some(seconds(10)),
                probes: Some(count(5)),
            }),
            user_timeout: Some(seconds(30)),
            fast_open: true,
            backlog: count(9),
        };
        assert_eq!(listener.tcp, tcp);
    }

    #[test]
    fn keepalive_may_be_a_time_alone() {
        let keepalive = |word| listener(&format!("bind: '*:80', tcp: {{keepalive: {word}}}")).tcp;
        let idle = Duration::from_secs(60);
        let expected = Keepalive {
            idle,
            interval: None,
            probes: None,
        };
        assert_eq!(keepalive("60s").keepalive, Some(expected));
        assert_eq!(keepalive("off"), Tcp::default());
    }

    #[test]
    fn whoever_is_believed_must_be_named_but_for_unix_sockets() {
        let accept = "proxy_protocol: accept";
        assert!(mistakes(&format!("bind: '*:80', {accept}"))[0].contains("could forge"));
        assert!(mistakes(&format!("bind: [unix:@a, '*:80'], {accept}"))[0].contains("forge"));
        let trusted = nets(&[]);
        let unix = listener(&format!("bind: [unix:@a, unix:@b], {accept}"));
        assert_eq!(unix.proxy_protocol, ProxyProtocol::Accept { trusted });
        let trusted = mistakes("bind: '*:80', trusted_proxies: 10.0.0.1");
        assert!(trusted[0].contains("has no effect"), "{trusted:?}");
        let off = listener("bind: '*:80', proxy_protocol: off, trusted_proxies: 10.0.0.1");
        assert_eq!(off.proxy_protocol, ProxyProtocol::Off);
        // What cannot be read is one mistake.
        for keys in [
            "proxy_protocol: accept, trusted_proxies: x",
            "proxy_protocol: accept, trusted_proxies: {}",
            "proxy_protocol: accept, trusted_proxies: []",
            "proxy_protocol: on, trusted_proxies: 10.0.0.1",
        ] {
            assert_eq!(
                mistakes(&format!("bind: '*:80', {keys}")).len(),
                1,
                "{keys}"
            );
        }
    }

    #[test]
    fn a_hundred_thousand_networks_are_read_in_full() {
        let network = |n: u32| format!("{}.{}.{}.0/24", 1 + (n >> 16), (n >> 8) & 255, n & 255);
        let all: Vec<_> = (0..100_000).map(network).collect();
        let listener = listener(&format!("bind: '*:80', deny: [{}]", all.join(", ")));
        assert_eq!(listener.deny.len(), 100_000);
    }

    #[test]
    fn a_pool_that_only_a_server_name_leads_to_can_close_a_circle() {
        let keys = "bind: [127.0.0.1:9002, unix:@x], sni: {a: other}";
        assert_eq!(
            mistakes(keys),
            [
                "pools.other.servers[0]: 127.0.0.1:9002 is this pool's own listener web, \
              write another address or port"
            ]
        );
        let unix = text("bind: unix:@x, sni: {a: other}").replace("127.0.0.1:9001", "unix:@x");
        let mistakes = read("x", &unix).unwrap_err().to_string();
        assert!(
            mistakes.contains("unix:@x is this pool's own listener web"),
            "{mistakes}"
        );
    }
}
