//! A worker on a thread of its own with real sockets: what it is told while connections live.

mod handover;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};

use super::*;
use crate::admission::PerSource;
use crate::balance::Algorithm;
use crate::config;
use crate::ids::{ConnectionId, ListenerId, PoolId};
use crate::pool::drain::{Drain, Pace, Scope};
use crate::pool::ledger::Ledger;
use crate::pool::tally::{ListenerTally, PoolTally, ServerTally};
use crate::pool::{Member, Pool};
use crate::relay::pipe_cache::Quota;
use crate::sys;
use crate::telemetry::connection::{ConnectionStatus, Limiter, Stage};
use crate::telemetry::histogram::Total;

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A worker, and a server behind it.
struct Rig {
    outbox: Outbox<Command>,
    reports: Receiver<Drained>,
    ledger: Ledger,
    counters: Arc<Counters>,
    listener: Arc<ListenerTally>,
    pool: Arc<PoolTally>,
    server: Arc<ServerTally>,
    serving: TcpListener,
    /// Where the door 0 listens.
    address: SocketAddr,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.outbox.send(Command::Stop).unwrap_or(());
        let thread = self.thread.take().unwrap();
        if !thread::panicking() {
            thread.join().unwrap().unwrap();
        }
    }
}

fn worker() -> (Outbox<Command>, Receiver<Drained>, Worker) {
    let (outbox, ready) = Loop::new().unwrap();
    let (reports_sender, reports) = unbounded();
    let setup = Setup {
        outboxes: vec![outbox.clone()],
        ledger: Ledger::new(1, u32::MAX),
        quota: Quota::new(sys::limits::PipeLimits::read(), 1024, 1),
        recorder: None,
        reports: reports_sender,
        parking: None,
    };
    let worker = Worker::new(0, ready, setup, Arc::new(Counters::default()));
    (outbox, reports, worker)
}

fn door(id: u32, listener: usize) -> (SocketAddr, Door) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let door = Door::new(DoorId(id), ListenerId::new(listener), socket);
    (address, door)
}

impl Rig {
    /// The listener 0 with the door 0, the pool 0 and the server 0.
    fn start() -> Self {
        let (outbox, reports, worker) = worker();
        let (address, door) = door(0, 0);
        let rig = Self {
            outbox,
            reports,
            ledger: worker.setup.ledger.clone(),
            counters: Arc::clone(&worker.counters),
            listener: Arc::new(ListenerTally::new(1)),
            pool: Arc::new(PoolTally::new(1)),
            server: Arc::new(ServerTally::new(1)),
            serving: TcpListener::bind("127.0.0.1:0").unwrap(),
            address,
            thread: Some(thread::spawn(|| worker.run())),
        };
        rig.change(Change {
            listeners: vec![(ListenerId::new(0), rig.listener())],
            pools: vec![rig.pool()],
            open: vec![door],
            ..Change::default()
        });
        rig
    }

    fn listener(&self) -> Listener {
        Listener {
            pool: PoolId::new(0),
            idle_timeout: Duration::from_secs(3600),
            half_close_timeout: Duration::from_secs(300),
            rules: Arc::new(Rules {
                header_timeout: Duration::from_secs(5),
                trusted_proxies: None,
                server_names: None,
                access: Arc::default(),
                max_connections: None,
                per_source: PerSource::default(),
                tcp: config::Tcp::default(),
            }),
            tally: Arc::clone(&self.listener),
        }
    }

    fn pool(&self) -> Pool {
        let server = config::Server {
            name: "a".into(),
            address: self.serving.local_addr().unwrap().into(),
            weight: 1,
            max_connections: None,
            backup: false,
            found_by: None,
        };
        let config = config::Pool {
            algorithm: Algorithm::RoundRobin,
            connect_timeout: PATIENCE,
            retries: 0,
            ..config::Pool::plain("web", vec![server])
        };
        let member = Member {
            id: ServerId::new(0),
            tally: Arc::clone(&self.server),
            is_open: true,
        };
        Pool::new(
            PoolId::new(0),
            &config,
            Arc::clone(&self.pool),
            vec![member],
        )
    }

    fn tell(&self, command: Command) {
        self.outbox.send(command).unwrap();
    }

    /// Waits until it is done.
    fn change(&self, mut change: Change) {
        let (sender, done) = bounded(1);
        change.done = Some(sender);
        self.tell(Command::Change(Box::new(change)));
        done.recv_timeout(PATIENCE).unwrap();
    }

    /// A client and the server's end of its connection, over which a byte has gone each way.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address).unwrap();
        let (server, _) = self.serving.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        exchange(&client, &server);
        (client, server)
    }

    fn list(&self, servers: Option<&[usize]>) -> Vec<ConnectionStatus> {
        let (reply, list) = bounded(1);
        let ids = |servers: &[usize]| servers.iter().copied().map(ServerId::new).collect();
        self.tell(Command::List(Listing {
            servers: servers.map(ids),
            pool: None,
            reply,
        }));
        list.recv_timeout(PATIENCE).unwrap()
    }

    fn drain(&self, scope: Scope, pace: Pace) -> Arc<Drain> {
        let connections = self.server.connections();
        let drain = Drain::new(scope, End::Drained, pace, connections, Now::read());
        let drain = Arc::new(drain);
        self.tell(Command::Drain(Arc::clone(&drain)));
        drain
    }

    fn ended(&self, end: End) -> u64 {
        self.counters.ended(end).value()
    }
}

fn exchange(mut client: &TcpStream, mut server: &TcpStream) {
    client.write_all(b"q").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"a").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Now::read() + PATIENCE;
    while !holds() {
        assert!(Now::read() < deadline, "{what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[track_caller]
fn expect_fin(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[track_caller]
fn expect_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Writes until nobody takes any more, and says how much that was.
fn stuff(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut full_since = Now::read();
    while Now::read().since(full_since) < Duration::from_millis(100) {
        match stream.write(&[7; 65536]) {
            Ok(bytes) => {
                sent += bytes;
                full_since = Now::read();
            }
            Err(_) => thread::park_timeout(Duration::from_millis(1)),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

const BRISK: Pace = Pace {
    rate: None,
    quiet: Duration::from_millis(20),
    deadline: None,
};

fn brisk() -> Pace {
    Pace {
        rate: Some("1000/s".parse().unwrap()),
        ..BRISK
    }
}

#[test]
fn timers_that_fire_at_once_take_several_turns_and_no_wait() {
    let (_outbox, _reports, mut worker) = worker();
    let now = Now::read();
    let due = 3 * EXPIRIES_PER_TURN + 1;
    let slots = 0..u32::try_from(due).unwrap();
    for slot in slots.clone() {
        worker.timers.arm(slot, Now::default());
    }
    for turn in 1..=4 {
        assert_eq!(worker.patience(), Some(Duration::ZERO));
        worker.expire(now);
        let left = slots.clone().filter(|slot| worker.timers.is_armed(*slot));
        assert_eq!(left.count(), due.saturating_sub(turn * EXPIRIES_PER_TURN));
    }
    assert_eq!(worker.patience(), None);
}

#[test]
fn a_pace_ends_quiet_connections_by_fin_and_nothing_is_lost() {
    let rig = Rig::start();
    let quiet = [rig.pair(), rig.pair()];
    let (mut client, server) = rig.pair();
    let sent = stuff(&server);
    let drain = rig.drain(Scope::Server(ServerId::new(0)), brisk());
    for (client, server) in &quiet {
        expect_fin(client);
        expect_fin(server);
    }
    until("both are counted", || drain.closed() == 2);
    assert_eq!(rig.ended(End::Drained), 2);
    // The third one is not quiet as long as its client does not read.
    drain.cancel();
    let mut got = vec![0; sent];
    client.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
    exchange(&client, &server);
    assert_eq!(rig.server.connections(), 1);
}

#[test]
fn at_the_deadline_all_of_the_server_are_reset_and_no_others() {
    let rig = Rig::start();
    let (client, server) = rig.pair();
    let other = rig.drain(Scope::Server(ServerId::new(7)), Pace::AT_ONCE);
    rig.drain(Scope::Server(ServerId::new(0)), Pace::PATIENT);
    exchange(&client, &server);
    let drain = rig.drain(Scope::Server(ServerId::new(0)), Pace::AT_ONCE);
    expect_reset(&client);
    expect_reset(&server);
    until("it is counted", || drain.closed() == 1);
    assert_eq!(other.closed(), 0);
}

#[test]
fn many_are_listed_and_drained_over_several_turns() {
    let rig = Rig::start();
    sys::limits::raise_descriptors().unwrap();
    let pairs: Vec<_> = (0..300).map(|_| rig.pair()).collect();
    let mut ids: Vec<_> = rig.list(None).iter().map(|status| status.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), pairs.len());
    let drain = rig.drain(Scope::Everything, Pace::AT_ONCE);
    until("all are closed", || rig.server.connections() == 0);
    assert_eq!(drain.closed(), 300);
    assert_eq!(rig.ended(End::Drained), 300);
    assert_eq!(rig.ledger.process_connections(), 0);
}

#[test]
fn who_is_killed_is_reset_and_told_of_and_others_live() {
    let rig = Rig::start();
    let (victim, other) = (rig.pair(), rig.pair());
    let local = victim.0.local_addr().unwrap();
    let list = rig.list(None);
    let id = list
        .iter()
        .find(|status| status.client == local.into())
        .unwrap()
        .id;
    let (reply, killed) = bounded(1);
    rig.tell(Command::Kill(Kill {
        connections: [ConnectionId(999), id].into(),
        reply,
    }));
    assert_eq!(killed.recv_timeout(PATIENCE).unwrap(), [id]);
    expect_reset(&victim.0);
    expect_reset(&victim.1);
    assert_eq!(rig.ended(End::Killed), 1);
    exchange(&other.0, &other.1);
}

#[test]
fn a_list_tells_where_each_connection_stands_and_who_limits_it() {
    let rig = Rig::start();
    let (mut client, server) = rig.pair();
    let [status] = <[_; 1]>::try_from(rig.list(Some(&[0, 3]))).unwrap();
    assert_eq!(status.client, client.local_addr().unwrap().into());
    assert_eq!(status.local, server.peer_addr().ok());
    assert_eq!(status.server, Some(ServerId::new(0)));
    assert_eq!((status.upstream_bytes, status.downstream_bytes), (1, 1));
    assert_eq!(status.stage, Stage::Relaying);
    assert_eq!(status.limited_by, Limiter::Client, "it has its answer");
    let paths = [status.paths.client, status.paths.server];
    assert!(paths.iter().all(|path| !path.unwrap().round_trip.is_zero()));
    assert!(rig.list(Some(&[3])).is_empty());

    stuff(&server);
    let [status] = <[_; 1]>::try_from(rig.list(None)).unwrap();
    assert_eq!(status.limited_by, Limiter::Client, "it does not read");
    assert!(status.paths.client.unwrap().unsent_bytes > 0);

    let (half, _server) = rig.pair();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let local = half.local_addr().unwrap();
    until("a half-closed connection waits for the server", || {
        let list = rig.list(None);
        let half = list
            .iter()
            .find(|status| status.client == local.into())
            .unwrap();
        (half.stage, half.limited_by) == (Stage::HalfClosed, Limiter::Server)
    });
    client.read_exact(&mut [0; 65536]).unwrap();
}

#[test]
fn doors_open_change_hands_and_close_while_connections_live() {
    let rig = Rig::start();
    let (client, server) = rig.pair();
    let (address, second) = door(1, 0);
    rig.change(Change {
        listeners: vec![(ListenerId::new(5), rig.listener())],
        open: vec![second],
        relabel: vec![
            (DoorId(0), ListenerId::new(5)),
            (DoorId(77), ListenerId::new(5)),
        ],
        close: vec![DoorId(78)],
        ..Change::default()
    });
    let _relabelled = rig.pair();
    let second = TcpStream::connect(address).unwrap();
    let (served, _) = rig.serving.accept().unwrap();
    exchange(&second, &served);
    let mut listeners: Vec<_> = rig.list(None).iter().map(|s| s.listener.index()).collect();
    listeners.sort_unstable();
    assert_eq!(listeners, [0, 0, 5]);

    // Who waits at a door that closes is still let in.
    let waiting = TcpStream::connect(rig.address).unwrap();
    rig.change(Change {
        close: vec![DoorId(0), DoorId(1)],
        gone_pools: vec![PoolId::new(0)],
        ..Change::default()
    });
    let (its_server, _) = rig.serving.accept().unwrap();
    exchange(&waiting, &its_server);
    for address in [rig.address, address] {
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    exchange(&client, &server);
    exchange(&second, &served);
    assert_eq!(rig.server.connections(), 4);
}

#[test]
fn more_doors_than_a_turn_closes_are_all_closed_when_it_is_told() {
    let rig = Rig::start();
    sys::limits::raise_descriptors().unwrap();
    let (addresses, doors): (Vec<_>, Vec<_>) = (1..300).map(|id| door(id, 0)).unzip();
    rig.change(Change {
        open: doors,
        ..Change::default()
    });
    rig.change(Change {
        close: (1..300).map(DoorId).collect(),
        ..Change::default()
    });
    for address in addresses {
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    rig.pair();
}

#[test]
fn a_connection_handed_over_before_its_listener_is_known_waits_for_it() {
    let rig = Rig::start();
    let doorstep = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(doorstep.local_addr().unwrap()).unwrap();
    let (accepted, address) = doorstep.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    assert!(rig.ledger.admit(0) && rig.listener.enter(None));
    rig.tell(Command::Adopt(Accepted::new(
        ListenerId::new(9),
        accepted.into(),
        address,
        Now::read(),
    )));
    rig.tell(Command::Leave);
    // It counts as one that is left.
    assert!(rig.list(None).is_empty());
    assert!(rig.reports.try_recv().is_err());
    rig.change(Change {
        listeners: vec![(ListenerId::new(9), rig.listener())],
        ..Change::default()
    });
    let (server, _) = rig.serving.accept().unwrap();
    exchange(&client, &server);
    drop((client, server));
    rig.reports.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn counts_are_live() {
    let rig = Rig::start();
    let (client, server) = rig.pair();
    exchange(&client, &server);
    let counters = &rig.server.workers()[0];
    until("bytes are counted while the connection lives", || {
        counters.upstream_bytes.value() == 2 && counters.downstream_bytes.value() == 2
    });
    assert_eq!(rig.counters.upstream_bytes.value(), 2);
    assert_eq!(
        (counters.connected.value(), rig.listener.connections()),
        (1, 1)
    );
    let samples = |histogram: &crate::telemetry::histogram::Histogram| {
        let mut total = Total::default();
        histogram.add_to(&mut total);
        total.count()
    };
    let pool = &rig.pool.workers()[0];
    assert_eq!((samples(&pool.connect), samples(&pool.connection)), (1, 0));
    drop((client, server));
    until("it has ended", || rig.listener.connections() == 0);
    assert_eq!((samples(&pool.connect), samples(&pool.connection)), (1, 1));

    // Nobody can serve the next one.
    rig.change(Change {
        gone_pools: vec![PoolId::new(0)],
        ..Change::default()
    });
    expect_reset(&TcpStream::connect(rig.address).unwrap());
    let listener = &rig.listener.workers()[0];
    until("it is counted", || {
        listener.refused(End::NoServer).value() == 1
    });
    assert_eq!((listener.accepted.value(), listener.ended.value()), (2, 2));
}

#[test]
fn a_refused_connect_is_counted_with_its_server() {
    let mut rig = Rig::start();
    // The pool knows the address of the first one, which is closed.
    rig.serving = TcpListener::bind("127.0.0.1:0").unwrap();
    expect_reset(&TcpStream::connect(rig.address).unwrap());
    let counters = &rig.server.workers()[0];
    until("it is counted", || {
        let refused = crate::telemetry::counters::ConnectFailure::Refused;
        counters.failed(refused).value() == 1
    });
    assert_eq!(counters.connected.value(), 0);
}

#[test]
fn a_door_that_opens_during_a_pause_is_paused_too() {
    let (_outbox, _reports, mut worker) = worker();
    // Whoever comes in is refused: nobody has told this worker of a listener.
    worker.setup.ledger.set_process_max(0);
    let now = Now::read();
    worker.paused_until = Some(now + PATIENCE);
    let (address, door) = door(0, 0);
    worker.open(vec![door]);
    let _client = TcpStream::connect(address).unwrap();
    let mut events = Events::with_capacity(8);
    let mut visitors = |worker: &mut Worker| {
        worker.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().count()
    };
    assert_eq!(visitors(&mut worker), 0);
    worker.resume(now + PATIENCE);
    // Whether there is still a shortage is tried at once.
    assert_eq!(worker.counters.accepted.value(), 1);
    let _another = TcpStream::connect(address).unwrap();
    until("the pause is over", || visitors(&mut worker) == 1);
}

#[test]
fn a_door_s_late_event_meets_nobody() {
    let (_outbox, _reports, mut worker) = worker();
    worker.visit(DoorId(3), Now::read());
    worker.close_door(DoorId(3), Now::read());
}
