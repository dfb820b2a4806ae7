//! Who keeps what when another process takes over: the same, changed, gone and renamed.

use super::*;
use crate::config::{self, Config};
use crate::end::End;
use crate::handover::world::{
    DoorState, DrainState, FindingsState, ListenerState, PoolState, ServerState, WeightState,
};
use crate::ids::PoolId;
use crate::roster::Standing;

/// `web` and `gone` before, by numbers that no id here has.
fn world() -> World {
    let listener = |number, name: &str, pool: &str| ListenerState {
        number,
        name: name.to_owned(),
        pool: pool.to_owned(),
        idle_timeout: 9_000_000_000,
        ..ListenerState::default()
    };
    let pool = |number, name: &str| PoolState {
        number,
        name: name.to_owned(),
        ..PoolState::default()
    };
    World {
        listeners: vec![listener(70, "web", "web"), listener(71, "gone", "gone")],
        pools: vec![pool(80, "web"), pool(81, "gone")],
        servers: vec![
            server(90, "web", "a", 1),
            server(91, "web", "b", 2),
            server(92, "gone", "c", 3),
        ],
        ..World::default()
    }
}

fn server(number: u32, pool: &str, name: &str, port: u16) -> ServerState {
    ServerState {
        number,
        pool: pool.to_owned(),
        name: name.to_owned(),
        address: format!("127.0.0.1:{port}"),
        ..ServerState::default()
    }
}

fn findings(is_up: bool) -> Option<FindingsState> {
    Some(FindingsState {
        is_up: Some(is_up),
        since: 5,
        last: Some("failed".to_owned()),
        share_percent: Some(40),
        reason: "http 500".to_owned(),
    })
}

/// `web` alone, with servers `a` at port 1 and `b` at this one.
fn config(health: &str, port: u16) -> Config {
    let text = format!(
        "listeners: {{web: {{bind: '127.0.0.1:80', pool: web}}}}\n\
         pools:\n\
         \x20 web:\n\
         \x20   health: {health}\n\
         \x20   servers: [{{name: a, address: '127.0.0.1:1'}}, \
         {{name: b, address: '127.0.0.1:{port}'}}]\n"
    );
    config::read("t", &text).unwrap()
}

fn heir(world: World) -> Heir {
    Heritage::new(world, Vec::new()).heir
}

/// `config` seated for the first time, on top of `world`.
fn seated(config: Config, world: World) -> (Serving, Heir) {
    let mut next = Serving::nothing(&config, 2).seat(config);
    let mut heir = heir(world);
    heir.give(&mut next, Now::from_nanoseconds(1_000));
    (next, heir)
}

#[test]
fn who_has_the_same_names_is_the_same() {
    let (next, heir) = seated(config("off", 2), world());
    let past = &heir.past;
    assert_eq!(past.listeners[&70].0, next.listeners[0].id);
    assert_eq!(past.pools[&80].0, next.pools[0].id);
    for (number, place) in [(90, 0), (91, 1)] {
        let (id, tally) = &past.servers[&number];
        let seat = &next.pools[0].servers[place];
        assert_eq!(*id, seat.id);
        assert!(std::sync::Arc::ptr_eq(tally, &seat.tally));
    }
}

#[test]
fn who_is_gone_has_left_with_a_number_of_its_own() {
    let (next, heir) = seated(config("off", 2), world());
    let past = &heir.past;
    let (listener, server) = (past.listeners[&71].0, past.servers[&92].0);
    assert_ne!(listener, next.listeners[0].id);
    let left = &next.left_listeners[0];
    assert_eq!((left.listener.id, &*left.pool), (listener, "gone"));
    let (id, shown) = &past.left_listeners[0];
    assert_eq!(*id, listener);
    assert_eq!(shown.idle_timeout.as_secs(), 9);
    assert_eq!(shown.pool, past.pools[&81].0);
    assert!(!shown.rules.access.admits("127.0.0.1".parse().unwrap()));
    assert_eq!(past.left_pools, [(past.pools[&81].0, "gone".into())]);
    assert_ne!(past.pools[&81].0, PoolId::new(0));
    let leaving = &next.leaving[0];
    assert_eq!((leaving.server.id, &*leaving.pool), (server, "gone"));
    assert!(next.place_of(server).is_none());
    assert_eq!(past.left[&server].address.to_string(), "127.0.0.1:3");
}

#[test]
fn another_address_is_another_server_and_its_pool_counts_on() {
    let (next, heir) = seated(config("off", 9), world());
    let past = &heir.past;
    let (gone, _) = past.servers[&91];
    assert_ne!(gone, next.pools[0].servers[1].id);
    let left = &past.left[&gone];
    assert!(std::sync::Arc::ptr_eq(
        &left.pool_tally,
        &next.pools[0].tally
    ));
}

#[test]
fn what_an_operator_wants_of_a_server_goes_over() {
    let mut world = world();
    world.servers[0].standing = Some("maintenance".to_owned());
    world.servers[0].ramp_began = 77;
    world.servers[0].drain = Some(DrainState {
        end: "drained".to_owned(),
        interval: Some(100_000_000),
        quiet: 200_000_000,
        begun: 500,
        began_with: 9,
        closed: 4,
        ..DrainState::default()
    });
    world.servers[1].standing = Some("enchanted".to_owned());
    let (next, _) = seated(config("off", 2), world);
    let [a, b] = &next.pools[0].servers[..] else {
        panic!("two servers");
    };
    assert_eq!(
        (a.standing, b.standing),
        (Standing::Maintenance, Standing::Ready)
    );
    assert_eq!(a.tally.ramp_began(), Now::from_nanoseconds(77));
    let drain = a.drain.as_ref().unwrap();
    assert_eq!((drain.end(), drain.closed()), (End::Drained, 4));
    assert_eq!(drain.began_with(), 9);
    assert_eq!(drain.pace().rate.unwrap().to_string(), "10/s");
    assert!(b.drain.is_none());
}

#[test]
fn one_that_had_left_and_is_wanted_again_is_back_without_its_drain() {
    let mut world = world();
    world.servers[0].has_left = true;
    world.servers[0].standing = Some("draining".to_owned());
    world.servers[0].drain = Some(DrainState::default());
    let (next, _) = seated(config("off", 2), world);
    let seat = &next.pools[0].servers[0];
    assert_eq!(
        (seat.standing, seat.drain.is_some()),
        (Standing::Ready, false)
    );
    assert!(next.leaving.iter().all(|leaving| &*leaving.pool == "gone"));
}

#[test]
fn what_checks_have_found_is_believed_where_there_still_are_checks() {
    let mut world = world();
    world.servers[0].findings = findings(false);
    let (next, heir) = seated(config("{type: tcp}", 2), world.clone());
    let found = next.pools[0].servers[0].tally.checkup().findings();
    assert_eq!((found.is_up, &*found.reason), (Some(false), "http 500"));
    assert_eq!(found.share_percent, 40);
    let told = &heir.past.verdicts;
    assert_eq!(told.len(), 1, "nothing is known of the other one");
    assert_eq!(told[0].server, next.pools[0].servers[0].id);
    let (next, heir) = seated(config("off", 2), world);
    let found = next.pools[0].servers[0].tally.checkup().findings();
    assert_eq!((found.is_up, heir.past.verdicts.len()), (None, 0));
}

#[test]
fn wishes_count_only_while_the_file_says_what_it_said() {
    let mut world = world();
    world.process.digest = Some("1".to_owned());
    world.wishes.weights = vec![WeightState::default()];
    let heir = heir(world);
    let wishes = |digest: &str| heir.wishes(Some(&digest.to_owned())).weights.len();
    assert_eq!((wishes("1"), wishes("2")), (1, 0));
}

#[test]
fn descriptors_are_dealt_out_in_their_order() {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    let mut world = world();
    let door = |listener, written: &str, descriptors| DoorState {
        listener,
        written: written.to_owned(),
        descriptors,
        ..DoorState::default()
    };
    world.doors = vec![door(70, "127.0.0.1:80", 2), door(71, "127.0.0.1:0", 1)];
    world.admin.socket = Some("/run/x.sock".into());
    world.admin.http = Some("127.0.0.1:7000".parse().unwrap());
    world.admin.http_written = Some("127.0.0.1:0".parse().unwrap());
    world.passed = vec!["web".to_owned()];
    let null = |_| OwnedFd::from(File::open("/dev/null").unwrap());
    let descriptors: Vec<_> = (0..world.descriptors()).map(null).collect();
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut all = Heritage::new(world, descriptors);
    let (path, socket) = all.admin.socket.unwrap();
    assert_eq!(path.to_str(), Some("/run/x.sock"));
    let http = all.admin.http.unwrap();
    assert_eq!(http.written.port(), 0);
    let rest = [
        socket.as_raw_fd(),
        http.socket.as_raw_fd(),
        all.passed[0].1.as_raw_fd(),
    ];
    assert_eq!(rest, numbers[3..]);
    let doors = &mut all.heir.doors;
    let id = crate::worker::DoorId(0);
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert!(doors.take(id, "web", &any.into()).is_none(), "another's");
    let known: std::net::SocketAddr = "127.0.0.1:80".parse().unwrap();
    let web = doors.take(id, "renamed", &known.into()).unwrap();
    let taken: Vec<_> = web.sockets.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(taken, numbers[..2]);
    assert!(doors.take(id, "web", &known.into()).is_none(), "only once");
}
