//! What a process says of itself, and which changes are taken for an operator's.

use super::*;
use crate::config;
use crate::end::End;
use crate::pool::drain::{Pace, Scope};
use crate::telemetry::events::Kind;

use std::fs::File;
use std::sync::Arc;

const CONFIG: &str = "listeners:\n\
    \x20 web: {bind: ['127.0.0.1:80', '127.0.0.1:81'], pool: web, idle_timeout: 7s}\n\
    \x20 old: {bind: '127.0.0.1:82', pool: db, half_close_timeout: 9s}\n\
    pools:\n\
    \x20 web:\n\
    \x20   health: {type: tcp}\n\
    \x20   servers:\n\
    \x20     - {name: a, address: '10.0.0.1:80'}\n\
    \x20     - {name: b, address: '10.0.0.2:80'}\n\
    \x20 db: {health: off, servers: ['10.0.0.3:80']}\n";

fn read(text: &str) -> Config {
    config::read("t", text).unwrap()
}

fn served(config: Config) -> Serving {
    Serving::nothing(&config, 2).seat(config)
}

#[test]
fn who_is_served_comes_first_and_who_has_left_is_named_too() {
    let serving = served(read(CONFIG));
    let mut rest = serving.config.clone();
    rest.listeners.truncate(1);
    rest.pools.truncate(1);
    rest.pools[0].servers.remove(0);
    let serving = serving.seat(rest);
    let listeners = listeners(&serving, Now::default());
    let second = Duration::from_secs(1);
    let shown: Vec<_> = listeners
        .iter()
        .map(|it| (it.number, &*it.name, it.has_left, &*it.pool))
        .collect();
    assert_eq!(shown, [(0, "web", false, "web"), (1, "old", true, "db")]);
    assert_eq!(listeners[0].idle_timeout, nanoseconds(7 * second));
    assert_eq!(listeners[1].half_close_timeout, nanoseconds(9 * second));
    let servers = servers(&serving);
    let shown: Vec<_> = servers
        .iter()
        .map(|it| (it.number, &*it.pool, &*it.name, it.has_left))
        .collect();
    let expected = [
        (1, "web", "b", false),
        (0, "web", "a", true),
        (2, "db", "10.0.0.3:80", true),
    ];
    assert_eq!(shown, expected);
    assert_eq!(servers[0].address, "10.0.0.2:80");
}

#[test]
fn only_who_is_checked_has_findings() {
    let serving = served(read(CONFIG));
    let checkup = serving.pools[0].servers[0].tally.checkup();
    checkup.note_verdict(false, Now::from_nanoseconds(5));
    checkup.note_share(30);
    let servers = servers(&serving);
    let findings = servers[0].findings.as_ref().unwrap();
    let known = (findings.is_up, findings.since, findings.share_percent);
    assert_eq!(known, (Some(false), 5, Some(30)));
    assert_eq!(servers[1].findings.as_ref().unwrap().is_up, None);
    assert_eq!(servers[2].findings, None);
}

#[test]
fn a_drain_goes_over_with_its_pace() {
    let mut serving = served(read(CONFIG));
    let seat = serving.server_mut("web", "a").unwrap();
    let pace = Pace {
        rate: Some("20/s".parse().unwrap()),
        deadline: Some(Duration::from_secs(1)),
        ..Pace::PATIENT
    };
    let begun = Now::from_nanoseconds(3);
    seat.begin(Drain::new(
        Scope::Server(seat.id),
        End::Drained,
        pace,
        4,
        begun,
    ));
    seat.standing = Standing::Draining;
    let servers = servers(&serving);
    assert_eq!(servers[0].standing.as_deref(), Some("draining"));
    assert_eq!(servers[1].standing.as_deref(), Some("ready"));
    let expected = DrainState {
        end: "drained".to_owned(),
        interval: Some(50_000_000),
        quiet: 200_000_000,
        deadline: Some(1_000_000_000),
        begun: 3,
        began_with: 4,
        closed: 0,
    };
    assert_eq!(servers[0].drain, Some(expected));
}

#[test]
fn what_an_operator_has_changed_is_a_wish_and_nothing_else_is() {
    let loaded = read(CONFIG);
    assert_eq!(wishes(&loaded, &loaded), WishesState::default());
    let mut running = loaded.clone();
    let web = &mut running.pools[0];
    web.algorithm = crate::balance::Algorithm::Random;
    web.servers.remove(0);
    web.servers[0].weight = 9;
    let added = config::Server {
        name: "c".into(),
        address: config::server_address("10.0.0.9:80").unwrap(),
        ..web.servers[0].clone()
    };
    web.servers.push(added);
    let wishes = wishes(&loaded, &running);
    let algorithms = [("web".to_owned(), "random".to_owned())];
    assert_eq!(wishes.algorithms, algorithms.into());
    assert_eq!(wishes.removed, [("web".to_owned(), "a".to_owned())]);
    let [weight] = wishes.weights.as_slice() else {
        panic!("{wishes:?}");
    };
    assert_eq!((&*weight.server, weight.weight), ("b", 9));
    let [added] = wishes.added.as_slice() else {
        panic!("{wishes:?}");
    };
    let shown = (&*added.name, &*added.address, added.weight);
    assert_eq!(shown, ("c", "10.0.0.9:80", 9));
}

#[test]
fn a_server_of_the_same_name_elsewhere_is_another_one() {
    let loaded = read(CONFIG);
    let mut running = loaded.clone();
    running.pools[0].servers[0].address = config::server_address("10.0.0.9:80").unwrap();
    let wishes = wishes(&loaded, &running);
    assert_eq!(wishes.removed, [("web".to_owned(), "a".to_owned())]);
    assert_eq!(wishes.added[0].address, "10.0.0.9:80");
}

#[test]
fn each_worker_s_socket_goes_over_but_a_shared_one_once() {
    let serving = served(read(CONFIG));
    let (ids, doors) = doors(&serving, |door| door == DoorId(1));
    assert_eq!(ids, [DoorId(0), DoorId(1), DoorId(2)]);
    assert!(doors[1].has_file && !doors[0].has_file);
    assert_eq!((doors[2].listener, &*doors[2].written), (1, "127.0.0.1:82"));
    let socket = |door, is_shared| DoorSocket {
        door: DoorId(door),
        is_shared,
        socket: Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()).into()),
    };
    let workers = [(); 2].map(|()| {
        let (sender, sockets) = bounded(1);
        let doors = vec![socket(1, true), socket(0, false)];
        sender.send(doors).unwrap();
        sockets
    });
    let parts = Parts {
        world: World {
            doors,
            passed: vec!["web".to_owned()],
            ..World::default()
        },
        doors: ids,
        sockets: workers.into(),
        others: vec![File::open("/dev/null").unwrap().into()],
    };
    let (world, open) = parts.gather().unwrap();
    let counts: Vec<_> = world.doors.iter().map(|door| door.descriptors).collect();
    // Nothing is bound at the last one.
    assert_eq!((counts, open.len()), (vec![2, 1, 0], 3));
    assert_eq!(parts.others().count(), 1);
    assert!(world.doors[1].is_shared && !world.doors[0].is_shared);
}

#[test]
fn wishes_for_the_absent_go_over_in_both_respects() {
    let text = "listeners: {l: {bind: '127.0.0.1:1', pool: db}}\n\
                pools: {db: {servers: ['db.test:80']}}\n";
    let config = read(text);
    let server = config::Server {
        name: "x".into(),
        address: config::server_address("10.0.0.1:80").unwrap(),
        weight: 1,
        max_connections: None,
        backup: false,
        found_by: Some(Arc::clone(&config.pools[0].templates[0].question)),
    };
    let (mut standings, mut weights) = (Absent::default(), Absent::default());
    standings.note(&"db".into(), &server, Standing::Maintenance);
    weights.note(&"db".into(), &server, 0);
    let states = absent(&standings, &weights);
    let shown: Vec<_> = states
        .iter()
        .map(|it| (&*it.source, it.standing.as_deref(), it.weight))
        .collect();
    let expected = [
        ("db.test:80", Some("maintenance"), None),
        ("db.test:80", None, Some(0)),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn events_keep_their_numbers_and_words() {
    let log = Events::default();
    log.add(Kind::Reloaded, "one");
    log.add(Kind::UpgradeFailed, "two");
    let all = events(&log);
    let shown: Vec<_> = all.iter().map(|it| (it.number, &*it.kind)).collect();
    assert_eq!(shown, [(1, "reloaded"), (2, "upgrade_failed")]);
    assert!(all.iter().all(|event| event.time > 0));
}
