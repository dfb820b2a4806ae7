//! Connections that go from one worker to another as they would to another process: through a socket,
//! with their descriptors. The first worker stands still meanwhile, and keeps its own.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use super::*;
use crate::handover::{Connections, channel};

/// Orders for a worker that stands still; it goes on when they are dropped.
struct Held(crossbeam_channel::Sender<Order>);

impl Rig {
    fn hold(&self) -> Held {
        let (reached_sender, reached) = bounded(1);
        let (orders, orders_receiver) = unbounded();
        self.tell(Command::Still(Still {
            reached: reached_sender,
            orders: orders_receiver,
        }));
        reached.recv_timeout(PATIENCE).unwrap();
        Held(orders)
    }
}

impl Held {
    /// What goes out, as it comes out at the other end.
    fn send_out(&self) -> Vec<Parcel> {
        let (here, there) = UnixStream::pair().unwrap();
        let (sender, _receiver) = channel(here, PATIENCE).unwrap();
        let (_sender, mut receiver) = channel(there, PATIENCE).unwrap();
        let (reply, sent) = bounded(1);
        self.0.send(Order::SendOut(sender, reply)).unwrap();
        let reading = thread::spawn(move || {
            let mut parcels = Vec::new();
            while let Ok((message, descriptors)) = receiver.expect::<Connections>() {
                parcels.extend(Parcel::unpack(message, descriptors).unwrap());
            }
            parcels
        });
        let (sender, sent) = sent.recv_timeout(PATIENCE).unwrap();
        drop((sender, _receiver));
        let parcels = reading.join().unwrap();
        assert_eq!(sent.unwrap(), parcels.len());
        parcels
    }

    fn take_in(&self, connections: Vec<Parcel>) {
        let count = connections.len();
        let (reply, taken) = bounded(1);
        let intake = Intake {
            connections,
            left: Arc::new(HashMap::new()),
            last_id: ConnectionId(0),
            reply,
        };
        self.0.send(Order::TakeIn(Box::new(intake))).unwrap();
        assert_eq!(taken.recv_timeout(PATIENCE).unwrap().unwrap(), count);
    }

    fn let_go(&self) {
        self.0.send(Order::LetGo).unwrap();
    }

    fn go_on(self) {
        self.0.send(Order::GoOn).unwrap();
    }
}

#[test]
fn connections_go_over_with_all_that_is_counted_of_them() {
    let old = Rig::start();
    let pairs: Vec<_> = (0..100).map(|_| old.pair()).collect();
    let still = old.hold();
    let parcels = still.send_out();
    let new = Rig::start();
    let held = new.hold();
    held.take_in(parcels);
    assert_eq!(new.ledger.process_connections(), 100);
    assert_eq!(new.server.connections(), 100);
    held.go_on();
    for (client, server) in &pairs {
        exchange(client, server);
    }
    let ids = |rig: &Rig| {
        let listed = rig.list(None);
        let mut ids: Vec<_> = listed.iter().map(|one| one.id.0).collect();
        ids.sort_unstable();
        ids
    };
    let known = ids(&new);
    assert_eq!(known.len(), 100);
    // Nobody gets an id that one of them has.
    let (_client, _server) = new.pair();
    let all = ids(&new);
    assert_eq!(all.len(), 101);
    assert!(known.last() < all.last());
    for (client, server) in &pairs {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        expect_fin(server);
        server.shutdown(std::net::Shutdown::Write).unwrap();
        // It is closed now; the client hears of it when the first worker's descriptor goes, too.
    }
    until("their places are given back", || {
        new.ledger.process_connections() == 1 && new.server.connections() == 1
    });
    assert_eq!(new.ended(End::ClientClosed), 100);
    drop(still);
}

#[test]
fn bytes_that_a_connection_holds_go_over_in_order() {
    let old = Rig::start();
    let (client, server) = old.pair();
    let sent = stuff(&server);
    let still = old.hold();
    let parcels = still.send_out();
    assert!(parcels[0].state.descriptors() > 2, "a pipe goes along");
    let new = Rig::start();
    let held = new.hold();
    held.take_in(parcels);
    held.go_on();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    (&client).read_to_end(&mut got).unwrap();
    assert_eq!((got.len(), got.iter().all(|byte| *byte == 7)), (sent, true));
    drop(still);
}

#[test]
fn who_has_let_go_keeps_no_end_from_being_heard() {
    let old = Rig::start();
    let (client, server) = old.pair();
    let still = old.hold();
    let parcels = still.send_out();
    let new = Rig::start();
    let held = new.hold();
    held.take_in(parcels);
    held.go_on();
    still.let_go();
    exchange(&client, &server);
    // It resets what is left.
    drop(new);
    expect_reset(&client);
    drop(still);
}

#[test]
fn a_handover_that_comes_to_nothing_changes_nothing() {
    let old = Rig::start();
    let (client, server) = old.pair();
    let still = old.hold();
    drop(still.send_out());
    // Who speaks meanwhile is heard when the worker goes on.
    (&client).write_all(b"meanwhile").unwrap();
    still.go_on();
    let mut got = [0; 9];
    (&server).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"meanwhile");
    exchange(&client, &server);
    assert_eq!(
        (old.ledger.process_connections(), old.server.connections()),
        (1, 1)
    );
}
