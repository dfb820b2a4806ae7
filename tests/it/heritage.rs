//! The real program takes over from a process that the test plays: what it says and when, what it serves
//! afterwards, and that it leaves everything alone where nothing comes of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use evenkeel::handover::dialogue::{
    Complete, Go, Ready, Refused, Serving, Took, send_large, send_world,
};
use evenkeel::handover::world::{
    Counts, DoorState, FindingsState, ListenerCounts, ListenerState, PoolState, ServerCounts,
    ServerState, World,
};
use evenkeel::handover::{
    ConnectionState, Connections, Hello, PhaseState, Receiver, Sender, channel,
};
use evenkeel::sys::process;

use socket2::{Domain, Socket, Type};

use crate::harness::peers::{self, Refusing, Server};
use crate::harness::program::{Evenkeel, binary};
use crate::harness::{DEADLINE, eventually, plain, with_health};

/// Numbers that the new process would not give by itself.
const LISTENER: u32 = 70;
const POOL: u32 = 80;
const SERVER: u32 = 90;
/// The id of the connection that goes over.
const ID: u64 = 4711;

/// The process before the one under test.
struct Old {
    outlet: Sender,
    inlet: Receiver,
    /// The new process, which is no child of the test's any more; `None` where it was gone at once.
    new: Option<OwnedFd>,
}

/// A connection as the old process has it: both of its sockets, and both peers.
struct Pair {
    client: TcpStream,
    accepted: TcpStream,
    connected: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn new(door: &TcpListener, server: &Server) -> Self {
        let client = peers::connect(door.local_addr().unwrap());
        let (accepted, _) = door.accept().unwrap();
        let connected = peers::connect(server.address());
        let server = server.accept();
        // As a worker has them.
        accepted.set_nonblocking(true).unwrap();
        connected.set_nonblocking(true).unwrap();
        Self {
            client,
            accepted,
            connected,
            server,
        }
    }

    fn state(&self, id: u64) -> ConnectionState {
        ConnectionState {
            id,
            listener: LISTENER,
            phase: PhaseState::Relaying,
            client: self.client.local_addr().ok(),
            pool: Some(POOL),
            server: Some(SERVER),
            has_server_socket: true,
            accepted: 1,
            active: evenkeel::clock::Now::read().as_nanoseconds(),
            ..ConnectionState::default()
        }
    }
}

/// Says what the one before it would, up to the world.
fn begin(config: &str, world: &World, descriptors: &[OwnedFd]) -> (Evenkeel, Old) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(binary());
    command.env("EVENKEEL_HANDOVER", "0");
    let input = Stdio::from(OwnedFd::from(theirs));
    let evenkeel = Evenkeel::launch_reading(config, command, input);
    let (outlet, inlet) = channel(ours, DEADLINE).unwrap();
    let (mut old, hello) = Old::greeted(outlet, inlet);
    hello.check().unwrap();
    // It may have refused already, and be gone.
    drop(old.outlet.send(&Hello::ours(), &[]));
    drop(send_world(&mut old.outlet, world, descriptors));
    (evenkeel, old)
}

impl Old {
    fn greeted(outlet: Sender, mut inlet: Receiver) -> (Self, Hello) {
        let (hello, _) = inlet.expect::<Hello>().unwrap();
        let new = process::open_number(hello.pid).ok();
        (Self { outlet, inlet, new }, hello)
    }

    /// Hangs up; the new process is gone then.
    #[track_caller]
    fn assert_left(self) {
        let Self { outlet, inlet, new } = self;
        drop((outlet, inlet));
        let is_gone = new.is_none_or(|new| process::ends_within(new, DEADLINE).unwrap());
        assert!(is_gone, "the new process goes on");
    }

    /// Says what was counted, and one connection.
    fn hand_over(&mut self, counts: &Counts, state: ConnectionState, pair: &Pair) {
        self.inlet.expect::<Ready>().unwrap();
        send_large(&mut self.outlet, counts).unwrap();
        let message = Connections {
            connections: vec![state],
        };
        let descriptors = [pair.accepted.as_fd(), pair.connected.as_fd()];
        self.outlet.send(&message, &descriptors).unwrap();
        let complete = Complete { connections: 1 };
        self.outlet.send(&complete, &[]).unwrap();
    }

    fn took(&mut self) {
        let (took, _) = self.inlet.expect::<Took>().unwrap();
        assert_eq!(took.connections, 1);
    }

    fn go(&mut self) {
        self.outlet.send(&Go {}, &[]).unwrap();
        self.inlet.expect::<Serving>().unwrap();
    }

    fn refused(&mut self) -> String {
        self.inlet.expect::<Refused>().unwrap().0.reason
    }
}

/// One listener, one pool, one server, and a door.
fn world(door: &TcpListener, server: SocketAddr) -> (World, Vec<OwnedFd>) {
    let world = World {
        listeners: vec![ListenerState {
            number: LISTENER,
            name: "web".to_owned(),
            pool: "web".to_owned(),
            idle_timeout: 60_000_000_000,
            half_close_timeout: 60_000_000_000,
            ..ListenerState::default()
        }],
        doors: vec![DoorState {
            listener: LISTENER,
            written: "127.0.0.1:0".to_owned(),
            actual: door.local_addr().unwrap().to_string(),
            descriptors: 1,
            ..DoorState::default()
        }],
        pools: vec![PoolState {
            number: POOL,
            name: "web".to_owned(),
            ..PoolState::default()
        }],
        servers: vec![ServerState {
            number: SERVER,
            pool: "web".to_owned(),
            name: server.to_string(),
            address: server.to_string(),
            ..ServerState::default()
        }],
        ..World::default()
    };
    (world, vec![door.try_clone().unwrap().into()])
}

fn counts() -> Counts {
    let mut counts = Counts::default();
    counts.process.insert("accepted".to_owned(), 12);
    counts.process.insert("last_connection".to_owned(), 5000);
    let listener = ListenerCounts {
        accepted: 12,
        ended: 11,
        ..ListenerCounts::default()
    };
    counts.listeners.insert(LISTENER, listener);
    let server = ServerCounts {
        connected: 12,
        ..ServerCounts::default()
    };
    counts.servers.insert(SERVER, server);
    counts
}

/// As a worker's own: a process with more workers binds further ones beside it.
fn door() -> TcpListener {
    door_at("127.0.0.1:0".parse().unwrap())
}

fn door_at(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

#[test]
fn a_connection_goes_on_in_the_new_process_and_new_ones_come_by_the_same_door() {
    let (door, server) = (door(), Server::listen());
    let mut pair = Pair::new(&door, &server);
    let (world, descriptors) = world(&door, server.address());
    let (evenkeel, mut old) = begin(&plain(&[server.address()]), &world, &descriptors);
    // What is on its way when it goes over arrives as well.
    pair.client.write_all(b"before").unwrap();
    old.hand_over(&counts(), pair.state(ID), &pair);
    old.took();
    door.set_nonblocking(true).unwrap();
    old.go();
    drop((pair.accepted, pair.connected, descriptors));
    let mut got = [0; 6];
    pair.server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"before");
    peers::ping(&mut pair.client, &mut pair.server);
    let mut newcomer = peers::connect(door.local_addr().unwrap());
    drop(door);
    peers::ping(&mut newcomer, &mut server.accept());
    let status = evenkeel.api().status();
    let listener = &status["listeners"]["web"]["connections"];
    assert_eq!(
        (&listener["total"], &listener["active"]),
        (&13.into(), &2.into())
    );
    drop(newcomer);
    let ended = evenkeel.end();
    assert!(ended.number("id") > 5000.0, "{ended:?}");
    drop(pair.client);
    drop(pair.server);
    let ended = evenkeel.ends(2).pop().unwrap();
    assert_eq!(ended.field("id"), ID.to_string());
    assert_eq!(ended.field("end"), "client_closed");
}

#[test]
fn without_a_go_the_connection_is_left_as_it_was() {
    let (door, server) = (door(), Server::listen());
    let mut pair = Pair::new(&door, &server);
    let (world, descriptors) = world(&door, server.address());
    let (evenkeel, mut old) = begin(&plain(&[server.address()]), &world, &descriptors);
    old.hand_over(&counts(), pair.state(ID), &pair);
    old.took();
    pair.client.write_all(b"kept").unwrap();
    old.assert_left();
    assert!(evenkeel.access().is_empty());
    // Neither FIN nor RST, and not a byte less.
    pair.accepted.set_nonblocking(false).unwrap();
    pair.connected.set_nonblocking(false).unwrap();
    let mut got = [0; 4];
    pair.accepted.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"kept");
    peers::ping(&mut pair.client, &mut pair.accepted);
    peers::ping(&mut pair.connected, &mut pair.server);
    let mut late = peers::connect(door.local_addr().unwrap());
    let (mut accepted, _) = door.accept().unwrap();
    peers::ping(&mut late, &mut accepted);
}

#[test]
fn a_connection_of_somebody_unknown_is_refused_in_words() {
    let (door, server) = (door(), Server::listen());
    let mut pair = Pair::new(&door, &server);
    let (world, descriptors) = world(&door, server.address());
    let (_evenkeel, mut old) = begin(&plain(&[server.address()]), &world, &descriptors);
    let state = ConnectionState {
        listener: LISTENER + 1,
        ..pair.state(ID)
    };
    old.hand_over(&counts(), state, &pair);
    let reason = old.refused();
    assert!(reason.contains("listener 71"), "{reason}");
    old.assert_left();
    pair.accepted.set_nonblocking(false).unwrap();
    peers::ping(&mut pair.client, &mut pair.accepted);
}

#[test]
fn what_keeps_it_from_starting_is_told_to_the_old_process() {
    let (door, server) = (door(), Server::listen());
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let bind = plain(&[server.address()]).replace("127.0.0.1:0", &taken.to_string());
    let descriptors = "max_connections: 4000000000\n";
    for (config, part) in [
        ("listeners: 7\n".to_owned(), "evenkeel.yaml:1"),
        (bind, "cannot bind"),
        (
            format!("{descriptors}{}", plain(&[server.address()])),
            "max_connections",
        ),
    ] {
        let (world, descriptors) = world(&door, server.address());
        let (_evenkeel, mut old) = begin(&config, &world, &descriptors);
        let reason = old.refused();
        assert!(reason.contains(part), "{reason}");
        old.assert_left();
    }
    drop(holder);
}

#[test]
fn what_was_found_of_a_server_is_believed_until_checks_say_otherwise() {
    let (door, refusing) = (door(), Refusing::new());
    let (mut world, descriptors) = world(&door, refusing.address());
    world.servers[0].findings = Some(FindingsState {
        is_up: Some(true),
        since: 1,
        reason: "connected".to_owned(),
        ..FindingsState::default()
    });
    let health = "    health: {type: tcp, interval: 100ms, timeout: 50ms, fall: 3}\n";
    let config = with_health("workers: 2", health, &[refusing.address()]);
    let (evenkeel, mut old) = begin(&config, &world, &descriptors);
    old.inlet.expect::<Ready>().unwrap();
    send_large(&mut old.outlet, &Counts::default()).unwrap();
    old.outlet.send(&Complete::default(), &[]).unwrap();
    old.inlet.expect::<Took>().unwrap();
    old.go();
    // Not by its first check, as at another start.
    let line = evenkeel.errors().wait_for("is down: ");
    assert!(line.contains("(3 failed checks)"), "{line}");
    let name = refusing.address().to_string();
    eventually("the server is down", || {
        evenkeel.api().status()["pools"]["web"]["servers"][&name]["state"] == "down"
    });
}

#[test]
fn a_server_that_is_gone_from_the_config_is_drained() {
    let (door, server, other) = (door(), Server::listen(), Server::listen());
    let mut pair = Pair::new(&door, &server);
    let (world, descriptors) = world(&door, server.address());
    let (evenkeel, mut old) = begin(&plain(&[other.address()]), &world, &descriptors);
    old.hand_over(&counts(), pair.state(ID), &pair);
    old.took();
    old.go();
    drop((pair.accepted, pair.connected));
    peers::ping(&mut pair.client, &mut pair.server);
    let status = evenkeel.api().status();
    let leaving = status["leaving"].to_string();
    assert!(leaving.contains(&server.address().to_string()), "{leaving}");
    drop(pair.client);
    drop(pair.server);
    let ended = evenkeel.end();
    assert_eq!(ended.field("server"), server.address().to_string());
    assert_eq!(ended.field("pool"), "web");
}

/// Nobody is lost at sockets that the new process has no workers for, neither who waits there nor who
/// comes while the old process still has them.
#[test]
fn a_process_with_fewer_workers_serves_all_sockets() {
    let server = Server::listen();
    let first = door();
    let mut doors = vec![first.try_clone().unwrap()];
    doors.extend([(); 2].map(|()| door_at(first.local_addr().unwrap())));
    let (mut world, _) = world(&first, server.address());
    world.doors[0].descriptors = 3;
    let copy = |door: &TcpListener| {
        door.set_nonblocking(true).unwrap();
        OwnedFd::from(door.try_clone().unwrap())
    };
    let descriptors: Vec<_> = doors.iter().map(copy).collect();
    let (_evenkeel, mut old) = begin(&plain(&[server.address()]), &world, &descriptors);
    old.inlet.expect::<Ready>().unwrap();
    send_large(&mut old.outlet, &Counts::default()).unwrap();
    old.outlet.send(&Complete::default(), &[]).unwrap();
    old.inlet.expect::<Took>().unwrap();
    // So many that each socket gets some.
    let some = || [(); 30].map(|()| peers::connect(first.local_addr().unwrap()));
    let waiting = some();
    old.go();
    let mut clients: Vec<_> = waiting.into_iter().chain(some()).collect();
    let mut servers: Vec<_> = clients.iter().map(|_| server.accept()).collect();
    drop((doors, descriptors));
    for (place, client) in clients.iter_mut().enumerate() {
        client.write_all(&[u8::try_from(place).unwrap()]).unwrap();
    }
    let read_one = |stream: &mut TcpStream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        byte[0]
    };
    let mut came: Vec<_> = servers.iter_mut().map(read_one).collect();
    came.sort_unstable();
    assert!(came.into_iter().eq(0..60));
}

#[test]
fn an_address_may_become_wider_or_narrower() {
    let server = Server::listen();
    let door = door_at("0.0.0.0:0".parse().unwrap());
    let port = door.local_addr().unwrap().port();
    let (mut world, descriptors) = world(&door, server.address());
    world.doors[0].written = format!("0.0.0.0:{port}");
    let narrow = format!("127.0.0.1:{port}");
    let config = plain(&[server.address()]).replace("127.0.0.1:0", &narrow);
    let (_evenkeel, mut old) = begin(&config, &world, &descriptors);
    old.inlet.expect::<Ready>().unwrap();
    old.assert_left();
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let (door, server) = (door(), Server::listen());
    let (world, _) = world(&door, server.address());
    let nothing = std::fs::File::open("/dev/null").unwrap();
    let connected = peers::connect(server.address());
    for strange in [OwnedFd::from(nothing), connected.into()] {
        let config = plain(&[server.address()]);
        let (_evenkeel, mut old) = begin(&config, &world, &[strange]);
        let reason = old.refused();
        assert!(reason.contains("nobody listens at it"), "{reason}");
        old.assert_left();
    }
}

#[test]
fn a_variable_alone_hands_nothing_over() {
    let server = Server::listen();
    let mut command = Command::new(binary());
    command.env("EVENKEEL_HANDOVER", "0");
    let evenkeel = Evenkeel::launch_with(&plain(&[server.address()]), command);
    let (mut client, mut server) = evenkeel.pair(&server);
    peers::ping(&mut client, &mut server);
}

#[test]
fn a_strange_old_process_is_told_so() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(binary());
    command.env("EVENKEEL_HANDOVER", "0");
    let input = Stdio::from(OwnedFd::from(theirs));
    let server = Server::listen();
    let _evenkeel = Evenkeel::launch_reading(&plain(&[server.address()]), command, input);
    let (outlet, inlet) = channel(ours, DEADLINE).unwrap();
    let (mut old, _) = Old::greeted(outlet, inlet);
    old.outlet.send(&Hello::default(), &[]).unwrap();
    let reason = old.refused();
    assert!(reason.contains("no evenkeel"), "{reason}");
    old.assert_left();
}
