//! A worker's lot with a store that is a socket of the test's.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use super::*;
use crate::park::Ahead;
use crate::park::message::Message;
use crate::park::proof::tests::Carried;
use crate::park::store::packets;
use crate::sys::ancillary;
use socket2::Socket;

struct Fixture {
    shelf: Arc<Shelf>,
    keeper: Socket,
    lot: Lot<usize>,
}

fn fixture() -> Fixture {
    let shelf = Arc::new(Shelf::new(1, true).unwrap());
    let (ours, keeper) = packets().unwrap();
    let store = Arc::new(Store::joined(ours));
    Fixture {
        lot: Lot::new(shelf.clone(), store, 0, 2),
        shelf,
        keeper,
    }
}

fn heard(keeper: &Socket) -> Option<Vec<OwnedFd>> {
    let (mut buffer, mut came) = ([0; 256], Vec::new());
    let bytes = ancillary::receive(keeper, &mut buffer, &mut came, DESCRIPTORS_MAX).ok()?;
    assert_eq!(
        Message::read(&buffer[..bytes]),
        Some(Message::Keep(SOCKET_NAME))
    );
    Some(came)
}

fn record(id: u64) -> Record {
    Record {
        id,
        ahead: Ahead::default(),
        ..Record::default()
    }
}

fn sockets(it: &Carried) -> [BorrowedFd<'_>; 2] {
    [it.client.as_fd(), it.server.as_fd()]
}

#[test]
fn what_lives_on_is_parked_and_what_does_not_costs_nothing() {
    let mut it = fixture();
    let pairs = [Carried::new(), Carried::new()];
    let now = Now::default();
    assert_eq!(it.lot.patience(now), None);
    it.lot.note(0, now);
    it.lot.note(1, now + AGE);
    assert_eq!(it.lot.patience(now), Some(AGE));
    assert_eq!(it.lot.next_due(now), None);
    assert_eq!(it.lot.next_due(now + AGE), Some(0));
    assert_eq!(it.lot.next_due(now + AGE), None);
    let [client, server] = sockets(&pairs[0]);
    let slot = it.lot.write(&record(7), client, server).unwrap();
    it.lot.send_soon(0);
    it.lot.send_soon(1);
    // The second one has ended.
    it.lot.flush(|key| (key == 0).then(|| sockets(&pairs[0])));
    assert_eq!(heard(&it.keeper).unwrap().len(), 2);
    assert!(heard(&it.keeper).is_none());
    let cookies = [client, server].map(|it| socket::cookie(it).unwrap());
    let records: Vec<_> = it.shelf.records().collect();
    assert_eq!(records, [(record(7), cookies)]);
    it.lot.ended(slot);
    assert_eq!(it.shelf.records().count(), 0);
    assert_eq!(it.lot.write(&record(8), client, server), Some(slot));
}

#[test]
fn a_store_that_takes_nothing_is_tried_again() {
    let mut it = fixture();
    let pair = Carried::new();
    let count = 100_000;
    (0..count).for_each(|key| it.lot.send_soon(key));
    it.lot.flush(|_| Some(sockets(&pair)));
    let left = it.lot.unsent.len();
    assert!(0 < left && left < count, "{left}");
    assert_eq!(it.lot.patience(Now::default()), Some(RETRY));
    let mut came = 0;
    while let Some(some) = heard(&it.keeper) {
        came += some.len();
        it.lot.flush(|_| Some(sockets(&pair)));
        if it.lot.unsent.len() < left {
            break;
        }
    }
    assert!(came > 0 && it.lot.unsent.len() < left);
}

#[test]
fn a_store_that_is_gone_is_given_up() {
    let mut it = fixture();
    let pair = Carried::new();
    drop(it.keeper);
    it.lot.send_soon(0);
    it.lot.flush(|_| Some(sockets(&pair)));
    it.lot.note(1, Now::default());
    assert_eq!(it.lot.patience(Now::default()), None);
}

#[test]
fn each_worker_has_places_of_its_own_and_no_more() {
    let mut it = fixture();
    let pair = Carried::new();
    let [client, server] = sockets(&pair);
    let mut other = Lot::<usize>::new(it.shelf.clone(), it.lot.store.clone(), 1, 2);
    let first = other.write(&record(1), client, server).unwrap();
    assert_eq!(first.index(), it.shelf.places() / 2);
    let mut count = 0;
    while let Some(slot) = it.lot.write(&record(1), client, server) {
        assert!(slot.index() < first.index());
        count += 1;
    }
    assert_eq!(count, it.shelf.places() / 2);
}

/// What parking costs, printed: `cargo test --release --lib -- --nocapture what_parking`.
#[test]
fn what_parking_costs_is_printed() {
    let mut it = fixture();
    let pairs: Vec<_> = (0..DESCRIPTORS_MAX / 2).map(|_| Carried::new()).collect();
    let rounds = 100;
    let (mut spent, mut ends) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        let begun = Now::read();
        let slots: Vec<_> = (0..pairs.len())
            .map(|key| {
                it.lot.note(key, Now::default());
                it.lot.next_due(Now::default() + AGE);
                let [client, server] = sockets(&pairs[key]);
                let slot = it.lot.write(&record(7), client, server);
                it.lot.send_soon(key);
                slot.unwrap()
            })
            .collect();
        it.lot.flush(|key| Some(sockets(&pairs[key])));
        let sent = Now::read();
        spent += sent.since(begun);
        slots.into_iter().for_each(|slot| it.lot.ended(slot));
        ends += Now::read().since(sent);
        // The time of whoever keeps them is its own.
        heard(&it.keeper).unwrap();
    }
    let connections = rounds * pairs.len() as u128;
    let (orderly, reset) = (more_at_an_end(true), more_at_an_end(false));
    let each = |time: Duration| time.as_nanos() / connections;
    println!(
        "parked in {} ns, forgotten in {} ns",
        each(spent),
        each(ends)
    );
    println!("an end in order takes {orderly} ns more, a reset {reset} ns more");
}

/// How many nanoseconds the end of a connection takes more where its sockets are kept elsewhere as well,
/// apart from those that give them up; medians of many.
fn more_at_an_end(is_orderly: bool) -> i64 {
    let mut ends = [true, false].map(|is_parked| {
        let one = || end(Carried::new(), is_orderly, is_parked);
        let mut times: Vec<_> = (0..1001).map(|_| one()).collect();
        times.sort();
        i64::try_from(times[times.len() / 2].as_nanos()).unwrap()
    });
    ends.reverse();
    ends[1] - ends[0]
}

fn end(it: Carried, is_orderly: bool, is_parked: bool) -> Duration {
    let Carried {
        client_peer,
        client,
        server,
        server_peer,
    } = it;
    if is_orderly {
        // As it is when a worker ends it: each end was passed on.
        let ends = [&client_peer, &server, &server_peer, &client];
        for socket in ends {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    } else {
        for socket in [&client, &server].map(socket2::SockRef::from) {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    let kept = is_parked.then(|| [&client, &server].map(|it| it.try_clone().unwrap()));
    let begun = Now::read();
    for it in [&client, &server].into_iter().filter(|_| is_parked) {
        match is_orderly {
            // It is over.
            true => it.shutdown(Shutdown::Both).unwrap_or(()),
            false => socket::disconnect(it).unwrap(),
        }
    }
    drop((client, server));
    let spent = Now::read().since(begun);
    drop(kept);
    spent
}
