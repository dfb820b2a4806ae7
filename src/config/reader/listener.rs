//! The keys of a listener.

use std::num::NonZeroU32;

use ipnet::IpNet;

use super::super::address::{self, Bind};
use super::super::file::{Listener, PerIp, Route, Tcp};
use super::super::mistake::{Mistakes, Wrong, quoted};
use super::super::tree::{Key, Kind, Located, Node, Path, Section, entries, value};
use super::super::{networks, server_names, words};
use super::{count, plain, tcp};
use crate::units::{Rate, RateError};

/// More than the kernel keeps by any usual `net.core.somaxconn`.
const BACKLOG_MAX: NonZeroU32 = NonZeroU32::new(65_535).expect("it is not zero");

/// What an empty list would do, and what to write instead.
const NO_PROXY: [&str; 2] = ["nobody is believed", "write at least one"];
const NOBODY: [&str; 2] = ["nobody can come in", "write at least one or remove the key"];

pub(super) fn listener(
    entry: &(Key, Node),
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Listener> {
    let (name, node) = entry;
    let mut section = Section::open(node, name.place, path, mistakes)?;
    let listener = Listener {
        name: name.clone(),
        bind: bind(&mut section, mistakes),
        pool: pool_name(&mut section, mistakes),
        sni: sni(&mut section, mistakes),
        is_proxy_protocol_written: section.has("proxy_protocol"),
        proxy_protocol: section.value_or("proxy_protocol", false, mistakes, is_accept),
        trusted_proxies: some_networks("trusted_proxies", NO_PROXY, &mut section, mistakes),
        allow: some_networks("allow", NOBODY, &mut section, mistakes),
        deny: networks("deny", &mut section, mistakes),
        max_connections: plain(section.value("max_connections", mistakes, count)),
        max_connections_per_ip: plain(section.value("max_connections_per_ip", mistakes, count)),
        connection_rate_per_ip: plain(section.value("connection_rate_per_ip", mistakes, rate)),
        per_ip: per_ip(&mut section, mistakes),
        header_timeout: plain(section.value("header_timeout", mistakes, words::timeout)),
        idle_timeout: plain(section.value("idle_timeout", mistakes, words::timeout)),
        half_close_timeout: plain(section.value("half_close_timeout", mistakes, words::timeout)),
        tcp: tcp_keys(&mut section, mistakes),
    };
    section.close(mistakes);
    Some(listener)
}

/// One address, or a list of them.
fn bind(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Vec<Option<Located<Bind>>> {
    let Some((key, node)) = section.required("bind", "0.0.0.0:5432", mistakes) else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let Kind::List(list) = &node.kind else {
        return vec![bind_address(node, &path, mistakes)];
    };
    if list.is_empty() {
        let wrong = Wrong::new("there is no address", "write at least one");
        mistakes.add(node.place, &path, wrong);
    }
    let read_one = |(index, item)| bind_address(item, &Path::Item(&path, index), mistakes);
    list.iter().enumerate().map(read_one).collect()
}

fn bind_address(node: &Node, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Located<Bind>> {
    value(node, path, mistakes, |text| address::bind(text, node.place))
}

/// Whether there is such a pool is seen later: it may stand further down.
fn pool_name(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Located<String>> {
    let (key, node) = section.required("pool", "and the name of a pool", mistakes)?;
    let path = Path::Key(section.path, &key.text);
    value(node, &path, mistakes, words::reference)
}

/// A map from server names to pools; absent is the same as none.
fn sni(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Vec<Route> {
    let Some((key, node)) = section.entry("sni") else {
        return Vec::new();
    };
    let path = Path::Key(section.path, &key.text);
    let entries = entries(node, &path, mistakes).unwrap_or_default();
    let read_one = |(key, node): &(Key, Node)| {
        let path = Path::Key(&path, &key.text);
        let names = server_names::pattern(&key.text)
            .map_err(|wrong| mistakes.add(key.place, &path, wrong))
            .ok();
        Route {
            key: key.clone(),
            names,
            pool: value(node, &path, mistakes, words::reference),
        }
    };
    entries.into_iter().map(read_one).collect()
}

/// `off` or `accept`.
fn is_accept(text: &str) -> Result<bool, Wrong> {
    match text {
        "off" => Ok(false),
        "accept" => Ok(true),
        _ => {
            let what = format!("{} is neither off nor accept", quoted(text));
            Err(Wrong::new(
                what,
                "write off or accept, which takes v1 and v2",
            ))
        }
    }
}

/// The same where none at all would have a consequence that nobody can mean.
fn some_networks(
    key: &'static str,
    [consequence, remedy]: [&str; 2],
    section: &mut Section<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<Vec<IpNet>>> {
    let path = Path::Key(section.path, key);
    let node = section.node(key)?;
    if let Kind::List(list) = &node.kind
        && list.is_empty()
    {
        let what = format!("there is no network, {consequence}");
        mistakes.add(node.place, &path, Wrong::new(what, remedy));
    }
    Some(listed(node, &path, mistakes))
}

/// One network or a list of them, without those that could not be read.
fn networks(
    key: &'static str,
    section: &mut Section<'_>,
    mistakes: &mut Mistakes,
) -> Option<Located<Vec<IpNet>>> {
    let path = Path::Key(section.path, key);
    Some(listed(section.node(key)?, &path, mistakes))
}

fn listed(node: &Node, path: &Path<'_>, mistakes: &mut Mistakes) -> Located<Vec<IpNet>> {
    let mut read_one =
        |node, path: &Path<'_>| plain(value(node, path, mistakes, networks::network));
    let networks = match &node.kind {
        Kind::List(list) => {
            let items = list.iter().enumerate();
            items
                .filter_map(|(index, item)| read_one(item, &Path::Item(path, index)))
                .collect()
        }
        _ => read_one(node, path).into_iter().collect(),
    };
    Located {
        place: node.place,
        value: networks,
    }
}

fn rate(text: &str) -> Result<Rate, Wrong> {
    text.parse::<Rate>().map_err(|error| match error {
        RateError::Unread => {
            Wrong::new(format!("{} is not a rate", quoted(text)), error.to_string())
        }
        RateError::Zero => {
            let what = format!("{} would let nobody in", quoted(text));
            Wrong::new(what, format!("{error}, or remove the key for no limit"))
        }
    })
}

/// How much of an address counts as one.
fn per_ip(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<PerIp> {
    let (key, node) = section.entry("per_ip")?;
    let path = Path::Key(section.path, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let prefix = |most| move |text: &str| words::number(text, 1..=most);
    let per_ip = PerIp {
        ipv4_prefix: plain(section.value("ipv4_prefix", mistakes, prefix(32))),
        ipv6_prefix: plain(section.value("ipv6_prefix", mistakes, prefix(128))),
    };
    section.close(mistakes);
    Some(per_ip)
}

fn tcp_keys(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Tcp> {
    let (key, node) = section.entry("tcp")?;
    let path = Path::Key(section.path, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let backlog = |text: &str| words::number(text, NonZeroU32::MIN..=BACKLOG_MAX);
    let keys = Tcp {
        keepalive: tcp::keepalive(&mut section, mistakes),
        user_timeout: tcp::user_timeout(&mut section, mistakes),
        fast_open: plain(section.value("fast_open", mistakes, words::truth)),
        backlog: plain(section.value("backlog", mistakes, backlog)),
    };
    section.close(mistakes);
    Some(keys)
}
