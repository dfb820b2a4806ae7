//! Who keeps a seat through a change, and what the threads are told of it.

use super::*;
use crate::clock::Now;
use crate::config::{Config, ProxyProtocol, ServerPattern};

/// A pool's name, its further lines, and its servers by name and port.
type PoolText<'a> = (&'a str, &'a str, &'a [(&'a str, u16)]);

/// `listeners`: name, address, pool.
fn config(listeners: &[(&str, &str, &str)], pools: &[PoolText<'_>]) -> Config {
    let mut text = String::from("listeners:\n");
    for (name, address, pool) in listeners {
        text += &format!("  {name}: {{bind: \"{address}\", pool: {pool}}}\n");
    }
    text += "pools:\n";
    for (name, lines, servers) in pools {
        text += &format!("  {name}:\n    {lines}\n    servers:\n");
        for (server, port) in *servers {
            text += &format!("      - {{name: {server}, address: \"127.0.0.1:{port}\"}}\n");
        }
    }
    config::read("test", &text).unwrap()
}

const UNCHECKED: &str = "health: off";
const CHECKED: &str = "health: {type: tcp}";

fn serving(config: Config) -> Serving {
    Serving::nothing(&config, 2).seat(config)
}

fn web(pool_lines: &str, servers: &[(&str, u16)]) -> Config {
    config(
        &[("web", "127.0.0.1:80", "web")],
        &[("web", pool_lines, servers)],
    )
}

fn ids(serving: &Serving) -> Vec<usize> {
    serving
        .servers()
        .map(|(_, server)| server.id.index())
        .collect()
}

#[test]
fn a_server_is_the_same_by_pool_name_and_address() {
    let before = serving(web(UNCHECKED, &[("a", 1), ("b", 2)]));
    let next = before.seat(web(UNCHECKED, &[("b", 2), ("c", 3), ("a", 9)]));
    assert_eq!(ids(&before), [0, 1]);
    assert_eq!(ids(&next), [1, 2, 3], "b stays, c is new, a is another one");
    assert_eq!(next.pools[0].id, before.pools[0].id);
    let left: Vec<_> = next.leaving.iter().map(|l| l.server.id.index()).collect();
    assert_eq!(left, [0]);
}

#[test]
fn a_server_that_comes_back_in_time_is_the_one_that_it_was_without_its_drain() {
    let before = serving(web(UNCHECKED, &[("a", 1), ("b", 2)]));
    let mut without = before.seat(web(UNCHECKED, &[("b", 2)]));
    without.leaving[0].server.standing = Standing::Draining;
    let back = without.seat(web(UNCHECKED, &[("a", 1), ("b", 2)]));
    assert_eq!(ids(&back), [0, 1]);
    assert!(back.leaving.is_empty());
    assert_eq!(back.pools[0].servers[0].standing, Standing::Ready);
    assert!(Arc::ptr_eq(
        &back.pools[0].servers[0].tally,
        &before.pools[0].servers[0].tally
    ));
}

#[test]
fn the_ids_of_forgotten_servers_are_given_again() {
    let before = serving(web(UNCHECKED, &[("a", 1), ("b", 2)]));
    let mut next = before.seat(web(UNCHECKED, &[("b", 2)]));
    next.leaving.clear();
    next.free(&[ServerId::new(0)]);
    let next = next.seat(web(UNCHECKED, &[("b", 2), ("c", 3), ("d", 4)]));
    assert_eq!(ids(&next), [1, 0, 2]);
}

#[test]
fn what_an_operator_wants_of_a_server_outlives_a_reload() {
    let mut before = serving(web(UNCHECKED, &[("a", 1), ("b", 2)]));
    before.server_mut("web", "a").unwrap().standing = Standing::Draining;
    let next = before.seat(web(UNCHECKED, &[("a", 1), ("c", 3)]));
    assert_eq!(next.pools[0].servers[0].standing, Standing::Draining);
}

#[test]
fn an_address_keeps_its_door_whichever_listener_has_it() {
    let pools: &[PoolText<'_>] = &[("p", UNCHECKED, &[("a", 1)])];
    let before = serving(config(
        &[("one", "127.0.0.1:80", "p"), ("two", "127.0.0.1:81", "p")],
        pools,
    ));
    let next = before.seat(config(
        &[("three", "127.0.0.1:80", "p"), ("two", "127.0.0.1:82", "p")],
        pools,
    ));
    let doors = doors(&before, &next);
    let three = next.listeners[0].id;
    assert_eq!(doors.relabelled, [(before.listeners[0].doors[0].id, three)]);
    assert_eq!(doors.new.len(), 1);
    assert_eq!(doors.new[0].1.written.ip().unwrap().port(), 82);
    assert_eq!(doors.gone.len(), 1);
    assert_eq!(doors.gone[0].written.ip().unwrap().port(), 81);
    assert_eq!(next.left_listeners.len(), 1);
}

#[test]
fn a_port_that_the_kernel_chose_stays_with_its_listener() {
    let pools: &[PoolText<'_>] = &[("p", UNCHECKED, &[("a", 1)])];
    let zero = "127.0.0.1:0";
    let mut before = serving(config(&[("one", zero, "p")], pools));
    let door = before.listeners[0].doors[0].id;
    before.note_addresses([(door, crate::address::Address::local(4711))].into_iter());
    let next = before.seat(config(&[("two", zero, "p"), ("one", zero, "p")], pools));
    assert_eq!(next.listeners[1].doors[0].actual.ip().unwrap().port(), 4711);
    assert_eq!(doors(&before, &next).new.len(), 1);
}

#[test]
fn only_what_differs_is_sent() {
    let text = |timeout: &str| format!("{UNCHECKED}\n    connect_timeout: {timeout}");
    let make = |timeout: &str| {
        let listeners = [("x", "127.0.0.1:80", "one"), ("y", "127.0.0.1:81", "two")];
        let changing = text(timeout);
        config(
            &listeners,
            &[
                ("one", UNCHECKED, &[("a", 1)]),
                ("two", &changing, &[("a", 1)]),
            ],
        )
    };
    let before = serving(make("1s"));
    let next = before.seat(make("2s"));
    assert!(listeners(&before, &next).is_empty());
    assert_eq!(pools(&before, &next).len(), 1);
    let same = before.seat(make("1s"));
    assert!(pools(&before, &same).is_empty() && gone_pools(&before, &same).is_empty());
    let mut drained = before.clone();
    drained.server_mut("one", "a").unwrap().standing = Standing::Draining;
    assert_eq!(pools(&before, &drained).len(), 1);
}

#[test]
fn checks_begin_end_and_change_with_the_config() {
    let before = serving(web(CHECKED, &[("a", 1), ("b", 2)]));
    let changed = "health: {type: tcp, interval: 9s}";
    let next = before.seat(web(changed, &[("a", 1), ("c", 3)]));
    let Watches { first, changed } = watched(&before, &next);
    let servers = |steps: Vec<Step>| -> Vec<_> {
        let server = |step| match step {
            Step::Watch(target) => target.server.index(),
            Step::Forget(server) => panic!("{server:?} stays"),
        };
        steps.into_iter().map(server).collect()
    };
    assert_eq!(servers(first), [2], "c is new");
    assert_eq!(servers(changed), [0], "a is checked in another way");
    assert_eq!(unwatched(&before, &next), [ServerId::new(1)]);
    let off = before.seat(web(UNCHECKED, &[("a", 1)]));
    assert_eq!(unwatched(&before, &off).len(), 2);
}

#[test]
fn only_a_pool_that_would_have_nobody_awaits_answers() {
    let up = |serving: &Serving, place: usize| {
        let checkup = serving.pools[0].servers[place].tally.checkup();
        checkup.note_verdict(true, Now::default());
    };
    let before = serving(web(CHECKED, &[("a", 1), ("b", 2)]));
    up(&before, 0);
    let keeps_a = before.seat(web(CHECKED, &[("a", 1), ("c", 3)]));
    assert!(awaited(&before, &keeps_a).is_empty());
    let all_new = before.seat(web(CHECKED, &[("c", 3), ("d", 4)]));
    assert_eq!(awaited(&before, &all_new).len(), 2);
    let keeps_b = before.seat(web(CHECKED, &[("b", 2), ("c", 3)]));
    assert_eq!(awaited(&before, &keeps_b).len(), 2, "b was never up");
    let unchecked = before.seat(web(UNCHECKED, &[("c", 3)]));
    assert!(awaited(&before, &unchecked).is_empty());
}

#[test]
fn through_any_walk_of_configs_ids_are_never_shared_and_nobody_is_lost() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut serving = serving(web(UNCHECKED, &[("a", 1)]));
    let mut seen: HashMap<ServerId, (String, u16)> = HashMap::new();
    for _ in 0..300 {
        let names = ["a", "b", "c", "d"];
        let mut servers: Vec<_> = names
            .into_iter()
            .map(|name| (name, random.u16(0..4)))
            .filter(|(_, port)| *port > 0)
            .collect();
        servers.dedup_by_key(|(_, port)| *port);
        let mut ports = HashSet::new();
        servers.retain(|(_, port)| ports.insert(*port));
        if servers.is_empty() {
            continue;
        }
        let next = serving.seat(web(UNCHECKED, &servers));
        let before: HashSet<_> = all_ids(&serving);
        assert!(
            all_ids(&next).is_superset(&before),
            "whoever was there sits or leaves"
        );
        for (_, server) in next.servers() {
            let who = (server.name.to_string(), server.address.ip().unwrap().port());
            assert_eq!(*seen.entry(server.id).or_insert(who.clone()), who);
        }
        let total = next.servers().count() + next.leaving.len();
        assert_eq!(all_ids(&next).len(), total, "nobody is in two places");
        serving = next;
    }
}

fn all_ids(serving: &Serving) -> HashSet<ServerId> {
    let seated = serving.servers().map(|(_, server)| server.id);
    let leaving = serving.leaving.iter().map(|leaving| leaving.server.id);
    seated.chain(leaving).collect()
}

#[test]
fn the_ids_of_a_change_that_came_to_nothing_are_not_given_again() {
    let mut before = serving(web(UNCHECKED, &[("a", 1)]));
    let aborted = before.seat(web(UNCHECKED, &[("a", 1), ("b", 2)]));
    before.retire_ids_of(&aborted);
    let next = before.seat(web(UNCHECKED, &[("a", 1), ("c", 3)]));
    assert_eq!((ids(&aborted), ids(&next)), (vec![0, 1], vec![0, 2]));
}

/// The listener `web` with routes to these pools, behind proxies of 10.0.0.0/8 and as many others.
fn routed(mut config: Config, pools: &[usize], proxies: usize) -> Config {
    let listener = config.listeners.iter_mut().find(|l| &*l.name == "web");
    let listener = listener.unwrap();
    let route = |(place, pool): (usize, &usize)| config::Route {
        names: ServerPattern::Below(format!("{place}.example").into()),
        pool: PoolId::new(*pool),
    };
    listener.sni = pools.iter().enumerate().map(route).collect();
    let others = (0..proxies).map(|other| format!("192.0.2.{other}/32").parse().unwrap());
    let trusted = std::iter::once("10.0.0.0/8".parse().unwrap()).chain(others);
    listener.proxy_protocol = ProxyProtocol::Accept {
        trusted: trusted.collect(),
    };
    config
}

#[test]
fn what_is_asked_at_a_door_is_made_again_only_where_it_differs() {
    let pools: &[PoolText<'_>] = &[("p", UNCHECKED, &[("a", 1)]), ("q", UNCHECKED, &[("b", 2)])];
    let make = |timeout: &str, proxies: usize, routes: &[usize]| {
        let pool = format!("p, idle_timeout: {timeout}");
        let listeners = [("web", "127.0.0.1:80", pool.as_str())];
        routed(config(&listeners, pools), routes, proxies)
    };
    let rules = |before: &mut Serving, next: Config| {
        let next = before.seat(next);
        let sent = listeners(before, &next);
        *before = next;
        let [(_, listener)] = <[_; 1]>::try_from(sent).unwrap();
        listener.rules
    };
    let mut serving = Serving::nothing(&make("1s", 0, &[1]), 2);
    let first = rules(&mut serving, make("1s", 0, &[1]));
    let tables = |rules: &Rules| {
        let proxies = Arc::as_ptr(rules.trusted_proxies.as_ref().unwrap());
        (proxies, Arc::as_ptr(rules.server_names.as_ref().unwrap()))
    };
    let slower = rules(&mut serving, make("2s", 0, &[1]));
    assert_eq!(tables(&slower), tables(&first));
    let other_proxies = rules(&mut serving, make("2s", 1, &[1]));
    assert_ne!(tables(&other_proxies).0, tables(&first).0);
    assert_eq!(tables(&other_proxies).1, tables(&first).1);
    let other_routes = rules(&mut serving, make("2s", 1, &[1, 0]));
    assert_eq!(tables(&other_routes).0, tables(&other_proxies).0);
    assert_ne!(tables(&other_routes).1, tables(&first).1);
    let plain = config(&[("web", "127.0.0.1:80", "p")], pools);
    let none = rules(&mut serving, plain);
    assert!(none.trusted_proxies.is_none() && none.server_names.is_none());
}

#[test]
fn a_pool_that_only_a_name_leads_to_is_in_use_and_known_by_who_it_is() {
    let p: PoolText<'_> = ("p", UNCHECKED, &[("a", 1)]);
    let q: PoolText<'_> = ("q", CHECKED, &[("b", 2)]);
    let door: &[(&str, &str, &str)] = &[("web", "127.0.0.1:80", "p")];
    let before = serving(routed(config(door, &[p, q]), &[1], 0));
    let first: PoolText<'_> = ("first", UNCHECKED, &[("c", 3)]);
    let next = before.seat(routed(config(door, &[first, p, q]), &[2], 0));
    assert!(
        listeners(&before, &next).is_empty(),
        "they only have other places"
    );
    let elsewhere = before.seat(routed(config(door, &[p, q]), &[0], 0));
    let sent = listeners(&before, &elsewhere);
    assert_eq!(sent.len(), 1);
    let awaited_of = |next: &Serving| awaited(&Serving::nothing(&next.config, 2), next).len();
    assert_eq!((awaited_of(&before), awaited_of(&elsewhere)), (1, 0));
}

#[test]
fn the_tables_of_a_listener_are_made_again_only_when_its_lists_change() {
    let mut config = web(UNCHECKED, &[("a", 1)]);
    config.listeners[0].deny = Arc::new(["10.0.0.0/8".parse().unwrap()]);
    let before = serving(config.clone());
    config.listeners[0].idle_timeout *= 2;
    let next = before.seat(config.clone());
    let told = listeners(&before, &next);
    assert!(Arc::ptr_eq(
        &told[0].1.rules.access,
        &before.listeners[0].access
    ));
    config.listeners[0].allow = Some(Arc::new([]));
    let last = next.seat(config);
    let rules = &listeners(&next, &last)[0].1.rules;
    assert!(!rules.access.admits("192.0.2.1".parse().unwrap()));
    assert!(!next.listeners[0].access.admits("10.1.1.1".parse().unwrap()));
    let tally = |serving: &Serving| Arc::clone(&serving.listeners[0].tally);
    assert!(Arc::ptr_eq(&tally(&before), &tally(&last)), "counts stay");
}
