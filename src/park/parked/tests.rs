//! A process parks real connections, "is killed", and the next one reads what is left.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use super::*;
use crate::handover::world::{AdminState, DoorState, ListenerState, PoolState, ServerState};
use crate::park::proof::tests::{Carried, carry, say};
use crate::park::record::Slot;
use crate::park::{Ahead, Record};

fn named(name: &str, descriptor: impl AsFd) -> (String, OwnedFd) {
    let descriptor = descriptor.as_fd().try_clone_to_owned().unwrap();
    (name.to_owned(), descriptor)
}

fn shelf(generation: u64) -> Shelf {
    let shelf = Shelf::new(generation, true).unwrap();
    let world = World {
        doors: vec![DoorState {
            descriptors: 2,
            ..DoorState::default()
        }],
        listeners: vec![ListenerState::default()],
        servers: vec![ServerState {
            number: 3,
            ..ServerState::default()
        }],
        pools: vec![PoolState {
            name: format!("web{generation}"),
            ..PoolState::default()
        }],
        admin: AdminState {
            socket: Some("/run/x".into()),
            ..AdminState::default()
        },
        ..World::default()
    };
    shelf.tell(&world).unwrap();
    shelf
}

fn put(shelf: &Shelf, index: u32, id: u64, it: &Carried) {
    let cookies = [&it.client, &it.server].map(|it| socket::cookie(it).unwrap());
    let record = Record {
        id,
        server: 3,
        client: it.client.peer_addr().ok(),
        ahead: Ahead::default(),
        ..Record::default()
    };
    shelf.write(Slot::new(index).unwrap(), &record, cookies);
}

fn both(it: &Carried) -> [(String, OwnedFd); 2] {
    [&it.server, &it.client].map(|socket| named(SOCKET_NAME, socket))
}

fn is_reset(peer: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let outcome = peer.read_to_end(&mut rest);
    outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn what_is_whole_goes_on_and_what_is_not_is_reset() {
    let mut all = [(); 4].map(|()| Carried::new());
    let shelf = shelf(5);
    shelf.complete();
    for (index, it) in (0..).zip(&all) {
        put(&shelf, index, u64::from(index) + 10, it);
    }
    let [whole, broken, half, unknown] = &mut all;
    shelf.clear(Slot::new(3).unwrap());
    say(&mut whole.client_peer, &whole.client, 6);
    carry(&mut whole.client, &mut whole.server, 4);
    say(&mut whole.server_peer, &whole.server, 3);
    carry(&mut whole.server, &mut whole.client, 3);
    say(&mut broken.client_peer, &broken.client, 6);
    broken.client.read_exact(&mut [0; 2]).unwrap();
    let mut found = vec![named("evenkeel+5", &shelf)];
    found.extend([&*whole, broken, unknown].map(both).into_iter().flatten());
    found.push(named(SOCKET_NAME, &half.client));
    drop(shelf);

    let parked = Parked::read(found, Now::from_nanoseconds(99));
    assert_eq!((parked.reset, parked.generation), (3, 5));
    assert_eq!(parked.shelves, ["evenkeel+5"]);
    assert_eq!(parked.world.pools[0].name, "web5");
    assert_eq!(parked.world.descriptors(), 0);
    let [(state, descriptors)] = &parked.connections[..] else {
        panic!("{parked:?}");
    };
    assert_eq!((state.id, state.server), (10, Some(3)));
    assert_eq!(
        (state.upstream.delivered, state.downstream.delivered),
        (4, 3)
    );
    assert_eq!(state.client, whole.client_peer.local_addr().ok());
    assert_eq!((state.descriptors(), state.active), (descriptors.len(), 99));
    for it in [broken, unknown] {
        assert!(is_reset(&mut it.client_peer) && is_reset(&mut it.server_peer));
    }
    assert!(is_reset(&mut half.client_peer));
    // The client's comes first, with what nobody had read.
    let mut client = TcpStream::from(descriptors[0].try_clone().unwrap());
    client.read_exact(&mut [0; 2]).unwrap();
    client.write_all(b"on").unwrap();
    whole.client_peer.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn the_last_complete_shelf_counts() {
    let it = Carried::new();
    let shelves = [3, 4, 5].map(shelf);
    put(&shelves[1], 0, 1, &it);
    shelves[0].complete();
    shelves[1].complete();
    let mut found: Vec<_> = shelves.iter().map(|it| named(&it.name(), it)).collect();
    found.extend(both(&it));
    let parked = Parked::read(found, Now::default());
    assert_eq!(parked.world.pools[0].name, "web4");
    assert_eq!((parked.generation, parked.connections.len()), (4, 1));
    assert_eq!(parked.shelves.len(), 3);
}

#[test]
fn without_a_shelf_all_are_reset_and_nothing_is_nothing() {
    let mut it = Carried::new();
    let mut found = vec![named(
        "evenkeel+1",
        std::fs::File::open("/dev/null").unwrap(),
    )];
    found.extend(both(&it));
    let parked = Parked::read(found, Now::default());
    assert_eq!((parked.reset, parked.connections.len()), (1, 0));
    assert!(is_reset(&mut it.client_peer) && is_reset(&mut it.server_peer));
    assert_eq!(Parked::read(Vec::new(), Now::default()).reset, 0);
    assert!(is_ours("+") && is_ours("evenkeel+1") && !is_ours("web"));
}
