//! The traps of relaying, by number: each is a way in which a relay that looks right loses bytes,
//! hangs or spins, and each test fails without the guard against it.
//!
//! "Does not spin" is counted in system calls while the tests' own threads exchange messages past
//! the program, so that no test depends on how fast the machine is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::harness::blocks::{Blocks, Finish};
use crate::harness::peers::{Peer, Server, connect, connect_with_receive_buffer, ping};
use crate::harness::proc::Proc;
use crate::harness::program::Evenkeel;
use crate::harness::strace::{Call, Strace, count};
use crate::harness::tools::LimitedDescriptors;
use crate::harness::{eventually, plain};

const MEBIBYTE: u64 = 1 << 20;
/// The largest pipe that the program may ask for (the default of `fs.pipe-max-size`).
const PIPE_BYTES_MAX: u64 = MEBIBYTE;
/// System calls that an idle program may make while it is looked at: timers and being attached to.
const QUIET_CALLS_MAX: usize = 150;

/// One worker before one server, and one connection whose readers have small windows.
struct Scene {
    evenkeel: Evenkeel,
    server: Server,
    client: TcpStream,
    serving: TcpStream,
}

impl Scene {
    fn open() -> Self {
        let server = Server::with_receive_buffer(16 * 1024);
        let evenkeel = Evenkeel::start(&plain(&[server.address()]));
        let client = connect_with_receive_buffer(16 * 1024, evenkeel.address());
        let serving = server.accept();
        Self {
            evenkeel,
            server,
            client,
            serving,
        }
    }

    /// The two sockets as writer and reader of the direction that begins at the client or not.
    fn direction(&mut self, upstream: bool) -> (&mut TcpStream, &mut TcpStream) {
        if upstream {
            (&mut self.client, &mut self.serving)
        } else {
            (&mut self.serving, &mut self.client)
        }
    }

    /// Writes until every buffer and a pipe on the way are full; the bytes that were taken.
    #[track_caller]
    fn block(&mut self, upstream: bool, stream: &mut Blocks) -> u64 {
        let idle = self.evenkeel.proc().count("pipe:");
        let (writer, _) = self.direction(upstream);
        let mut ahead = stream.clone();
        let sent = writer.write_until_blocked(|buffer| ahead.fill(buffer));
        stream.skip(sent);
        let now = self.evenkeel.proc().count("pipe:");
        assert!(
            now > idle,
            "{sent} bytes are stuck and no pipe holds some of them"
        );
        sent
    }

    fn trace(&self, arguments: &[&str]) -> Strace {
        Strace::attach(self.evenkeel.pid(), arguments)
    }

    /// The calls of a program that nobody asks for anything.
    #[track_caller]
    fn assert_quiet(&self) {
        let calls = quiet_calls(&self.evenkeel);
        let tail = &calls[calls.len().saturating_sub(10)..];
        assert!(
            calls.len() <= QUIET_CALLS_MAX,
            "{} calls, lately {tail:#?}",
            calls.len()
        );
    }
}

/// What the program calls while 3,000 messages pass elsewhere.
fn quiet_calls(evenkeel: &Evenkeel) -> Vec<Call> {
    let elsewhere = Server::listen();
    let mut client = connect(elsewhere.address());
    let mut serving = elsewhere.accept();
    let strace = Strace::attach(evenkeel.pid(), &[]);
    for _ in 0..3_000 {
        ping(&mut client, &mut serving);
    }
    strace.detach()
}

#[test]
fn trap_01_a_full_pipe_does_not_hide_data_and_fin_behind_it() {
    let mut scene = Scene::open();
    let mut stream = Blocks::new(1);
    let blocked = scene.block(true, &mut stream);
    let mut writer = scene.client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        // Segments of ten bytes fill the slots of a pipe long before its bytes.
        stream.send_pieces(&mut writer, 200_000, 10).unwrap();
        writer.end();
    });
    let received = Blocks::new(1).receive_to_end(&mut scene.serving);
    assert_eq!(
        (received.bytes, received.finish),
        (blocked + 200_000, Finish::Fin)
    );
    sender.join().unwrap();
}

#[test]
fn trap_02_data_behind_a_full_pipe_needs_no_new_edge() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        let sent = scene.block(upstream, &mut Blocks::new(2));
        // The writer does nothing more, so no edge will come for what its kernel side holds.
        let (_, reader) = scene.direction(upstream);
        Blocks::new(2).receive(reader, sent);
        ping(&mut scene.client, &mut scene.serving);
    }
}

#[test]
fn trap_02_data_behind_a_used_up_budget_needs_no_new_edge() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let pairs: Vec<_> = (0..3).map(|_| evenkeel.pair(&server)).collect();
    let threads = pairs.into_iter().map(|(mut client, mut serving)| {
        let sender = thread::spawn(move || {
            Blocks::new(3).send(&mut serving, 24 * MEBIBYTE).unwrap();
            serving
        });
        thread::spawn(move || {
            Blocks::new(3).receive(&mut client, 24 * MEBIBYTE);
            ping(&mut client, &mut sender.join().unwrap());
        })
    });
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn trap_03_an_urgent_byte_is_stepped_over_in_small_traffic() {
    let mut scene = Scene::open();
    for upstream in [true, false] {
        let (writer, reader) = scene.direction(upstream);
        writer.send_urgent(b'!');
        writer.write_all(b"after the first").unwrap();
        reader.expect(b"after the first");
        writer.write_all(b"before").unwrap();
        writer.send_urgent(b'!');
        writer.write_all(b"behind").unwrap();
        reader.expect(b"beforebehind");
    }
    ping(&mut scene.client, &mut scene.serving);
}

#[test]
fn trap_03_an_urgent_byte_is_stepped_over_in_bulk() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        let mut stream = Blocks::new(4);
        let mut sent = scene.block(upstream, &mut stream);
        let (writer, reader) = scene.direction(upstream);
        let mut writer = writer.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.send_urgent(b'!');
            stream.send(&mut writer, 8 * MEBIBYTE).unwrap();
            writer.end();
        });
        sent += 8 * MEBIBYTE;
        let received = Blocks::new(4).receive_to_end(reader);
        assert_eq!((received.bytes, received.finish), (sent, Finish::Fin));
        sender.join().unwrap();
    }
}

#[test]
fn trap_03_an_urgent_byte_with_nothing_behind_it_does_not_spin() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        let mut stream = Blocks::new(5);
        let sent = scene.block(upstream, &mut stream);
        let (writer, reader) = scene.direction(upstream);
        let mut receiving = Blocks::new(5);
        receiving.receive(reader, sent);
        writer.send_urgent(b'!');
        scene.assert_quiet();
        let (writer, reader) = scene.direction(upstream);
        stream.send(writer, 1000).unwrap();
        receiving.receive(reader, 1000);
    }
}

#[test]
fn trap_04_a_splice_that_returns_0_is_no_fin() {
    let mut scene = Scene::open();
    let strace = scene.trace(&["-e", "trace=splice", "-e", "inject=splice:retval=0"]);
    transfer_both_ways(&mut scene, 8 * MEBIBYTE);
    let calls = strace.detach();
    assert!(count(&calls, "splice") > 0, "no splice was tried");
    assert!(
        count(&calls, "splice") < 50,
        "splice that never works is given up"
    );
}

#[test]
fn trap_05_a_fin_waits_for_the_bytes_in_the_pipe() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        let sent = scene.block(upstream, &mut Blocks::new(6));
        let (writer, reader) = scene.direction(upstream);
        writer.end();
        let received = Blocks::new(6).receive_to_end(reader);
        assert_eq!((received.bytes, received.finish), (sent, Finish::Fin));
        reader.write_all(b"thanks").unwrap();
        let (writer, _) = scene.direction(upstream);
        writer.expect(b"thanks");
    }
}

#[test]
fn trap_06_a_reset_behind_bytes_in_a_pipe_is_no_fin() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        let before = scene.evenkeel.holding();
        let sent = scene.block(upstream, &mut Blocks::new(7));
        let Scene {
            evenkeel,
            client,
            serving,
            ..
        } = scene;
        let (writer, mut reader) = if upstream {
            (client, serving)
        } else {
            (serving, client)
        };
        writer.reset();
        let end = if upstream {
            "client_reset"
        } else {
            "server_reset"
        };
        assert_eq!(evenkeel.end().end(), end);
        let received = Blocks::new(7).receive_to_end(&mut reader);
        assert_eq!(received.finish, Finish::Reset);
        assert!(received.bytes <= sent);
        eventually("both sockets closed", || evenkeel.holding() != before);
    }
}

#[test]
fn trap_06_a_reset_by_the_reader_reaches_a_blocked_writer() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        scene.block(upstream, &mut Blocks::new(8));
        let Scene {
            evenkeel,
            client,
            serving,
            ..
        } = scene;
        let (mut writer, reader) = if upstream {
            (client, serving)
        } else {
            (serving, client)
        };
        reader.reset();
        writer.expect_reset();
        let end = if upstream {
            "server_reset"
        } else {
            "client_reset"
        };
        assert_eq!(evenkeel.end().end(), end);
    }
}

#[test]
fn trap_07_no_splice_asks_the_kernel_to_wait_for_more() {
    let calls = splices_of_a_transfer();
    let asks_for_more = calls
        .iter()
        .find(|call| call.text.contains("SPLICE_F_MORE"));
    assert!(asks_for_more.is_none(), "{asks_for_more:?}");
}

#[test]
fn trap_08_nothing_that_a_worker_touches_can_block() {
    let mut scene = Scene::open();
    scene.block(true, &mut Blocks::new(9));
    let process = scene.evenkeel.proc();
    let inherited = Proc(std::process::id()).descriptors();
    let inherited: Vec<_> = inherited.into_iter().map(|(_, link)| link).collect();
    let pipes = process
        .descriptors()
        .into_iter()
        .filter(|(descriptor, link)| {
            // Whatever it inherited from whoever runs the tests is not its own.
            *descriptor > 2 && link.starts_with("pipe:") && !inherited.contains(link)
        });
    let mut relaying = pipes
        .map(|(descriptor, _)| descriptor)
        .chain(process.tcp_sockets());
    let blocking = relaying.find(|descriptor| process.flags(*descriptor) & 0o4000 == 0);
    assert_eq!(blocking, None, "a descriptor without O_NONBLOCK");
    for call in splices_of_a_transfer() {
        assert!(call.text.contains("SPLICE_F_NONBLOCK"), "{call:?}");
    }
}

#[test]
fn trap_09_a_splice_asks_for_no_more_than_a_pipe_holds() {
    for call in splices_of_a_transfer() {
        assert!(length(&call) <= PIPE_BYTES_MAX, "{call:?}");
    }
}

#[test]
fn trap_09_a_connection_that_cannot_splice_copies() {
    let mut scene = Scene::open();
    let strace = scene.trace(&["-e", "trace=splice", "-e", "inject=splice:error=EINVAL"]);
    transfer_both_ways(&mut scene, 8 * MEBIBYTE);
    let calls = strace.detach();
    assert!(count(&calls, "splice") > 0, "no splice was tried");
    assert!(
        count(&calls, "splice") < 50,
        "EINVAL is final for the connection"
    );
}

#[test]
fn trap_10_bytes_that_cannot_move_do_not_spin() {
    for upstream in [true, false] {
        let mut scene = Scene::open();
        let sent = scene.block(upstream, &mut Blocks::new(10));
        scene.assert_quiet();
        // The netty case: a pipe with bytes, and the source's FIN behind them.
        scene.direction(upstream).0.end();
        scene.assert_quiet();
        let received = Blocks::new(10).receive_to_end(scene.direction(upstream).1);
        assert_eq!((received.bytes, received.finish), (sent, Finish::Fin));
    }
}

#[test]
fn trap_11_a_fin_together_with_unread_data_is_no_hangup() {
    let mut scene = Scene::open();
    Blocks::new(11).send(&mut scene.client, 100_000).unwrap();
    scene.client.end();
    scene.assert_quiet();
    let mut answering = scene.serving.try_clone().unwrap();
    let sender = thread::spawn(move || Blocks::new(12).send(&mut answering, MEBIBYTE).unwrap());
    Blocks::new(12).receive(&mut scene.client, MEBIBYTE);
    sender.join().unwrap();
    let received = Blocks::new(11).receive_to_end(&mut scene.serving);
    assert_eq!((received.bytes, received.finish), (100_000, Finish::Fin));
    scene.assert_quiet();
    drop(scene.serving);
    scene.client.expect_fin();
}

#[test]
fn trap_12_two_bulk_flows_share_a_worker() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let stop = Arc::new(AtomicBool::new(false));
    let flows = [0, 1].map(|_| evenkeel.pair(&server));
    let (mut threads, mut counts) = (Vec::new(), Vec::new());
    for (mut client, mut serving) in flows {
        let (stopped, received) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        counts.push(Arc::clone(&received));
        threads.push(thread::spawn(move || {
            let page = vec![0; 256 * 1024];
            while !stopped.load(Ordering::Relaxed) && serving.write_all(&page).is_ok() {}
        }));
        threads.push(thread::spawn(move || {
            let mut page = vec![0; 256 * 1024];
            while let Ok(read @ 1..) = client.read(&mut page) {
                received.fetch_add(read as u64, Ordering::Relaxed);
            }
        }));
    }
    let moved = |flow: &Arc<AtomicU64>| flow.load(Ordering::Relaxed);
    eventually("one flow moves 256 MiB", || {
        counts.iter().any(|flow| moved(flow) > 256 * MEBIBYTE)
    });
    let moved: Vec<u64> = counts.iter().map(moved).collect();
    stop.store(true, Ordering::Relaxed);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!(
        moved.iter().all(|bytes| *bytes > 16 * MEBIBYTE),
        "one flow starved: {moved:?}"
    );
}

#[test]
fn trap_13_no_wake_is_lost_between_small_messages_and_bulk() {
    let server = Server::with_receive_buffer(32 * 1024);
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let pairs: Vec<_> = (0..4).map(|_| evenkeel.pair(&server)).collect();
    let flows = (0..).zip(pairs).flat_map(|(seed, (client, serving))| {
        let back = (serving.try_clone().unwrap(), client.try_clone().unwrap());
        [
            flip_modes(2 * seed, client, serving),
            flip_modes(2 * seed + 1, back.0, back.1),
        ]
    });
    let flows: Vec<_> = flows.collect();
    flows.into_iter().for_each(|flow| flow.join().unwrap());
}

/// Sends and receives one seeded direction in which small messages, bulk and stalls alternate.
fn flip_modes(seed: u64, mut writer: TcpStream, mut reader: TcpStream) -> thread::JoinHandle<()> {
    let plan = move || {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..40).map(move |_| {
            if random.bool() {
                (random.u64(1..200_000), 64)
            } else {
                (random.u64(1..MEBIBYTE), 1 << 18)
            }
        })
    };
    let sender = thread::spawn(move || {
        let mut stream = Blocks::new(seed);
        for (bytes, piece) in plan() {
            stream
                .send_pieces(
                    &mut writer,
                    bytes.min(piece * 400),
                    usize::try_from(piece).unwrap(),
                )
                .unwrap();
        }
        writer.end();
    });
    thread::spawn(move || {
        let mut stream = Blocks::new(seed);
        for (part, (bytes, piece)) in plan().enumerate() {
            if part % 5 == 0 {
                crate::harness::pause(std::time::Duration::from_millis(20));
            }
            stream.receive(&mut reader, bytes.min(piece * 400));
        }
        reader.expect_fin();
        sender.join().unwrap();
    })
}

#[test]
fn trap_14_running_out_of_descriptors_pauses_accepting_without_spinning() {
    let mut scene = Scene::open();
    ping(&mut scene.client, &mut scene.serving);
    let limited = LimitedDescriptors::at_those_of(&scene.evenkeel);
    let waiting: Vec<_> = (0..20).map(|_| scene.evenkeel.connect()).collect();
    let calls = quiet_calls(&scene.evenkeel);
    assert!(
        calls.len() < QUIET_CALLS_MAX,
        "{} calls while paused",
        calls.len()
    );
    ping(&mut scene.client, &mut scene.serving);
    drop(limited);
    // One or two may have been accepted into a gap and then found no second descriptor.
    let mut served = Vec::new();
    eventually("every waiting client is served or refused", || {
        served.extend(scene.server.accept_pending());
        served.len() + scene.evenkeel.access().len() == waiting.len()
    });
    assert!(
        served.len() >= 18,
        "only {} of 20 were served",
        served.len()
    );
    ping(&mut scene.client, &mut scene.serving);
}

#[test]
fn trap_15_events_of_a_closed_socket_do_not_reach_its_successor() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let before = evenkeel.holding();
    let mut random = fastrand::Rng::with_seed(15);
    let mut open: Vec<(u64, TcpStream, TcpStream)> = Vec::new();
    for seed in 0..600 {
        let (client, mut serving) = evenkeel.pair(&server);
        Blocks::new(seed).send(&mut serving, 5_000).unwrap();
        open.push((seed, client, serving));
        // Both ends at once, so that one batch of events holds both sockets of a connection.
        if open.len() > 8 {
            let (_, client, serving) = open.swap_remove(random.usize(..open.len()));
            client.reset();
            serving.reset();
        }
        if seed % 50 == 0 {
            let (seed, mut client, _) = open.swap_remove(random.usize(..open.len()));
            Blocks::new(seed).receive(&mut client, 5_000);
        }
    }
    for (seed, mut client, mut serving) in open {
        Blocks::new(seed).receive(&mut client, 5_000);
        ping(&mut client, &mut serving);
    }
    assert_eq!(evenkeel.ends(600).len(), 600);
    evenkeel.back_to(&before);
}

#[test]
fn trap_16_no_splice_is_as_long_as_old_kernels_choke_on() {
    let longest = splices_of_a_transfer().iter().map(length).max();
    assert!(longest.unwrap() < 1 << 30, "{longest:?}");
}

/// The splice calls of a bulk transfer through a fresh program; at least one.
#[track_caller]
fn splices_of_a_transfer() -> Vec<Call> {
    let mut scene = Scene::open();
    let strace = scene.trace(&["-e", "trace=splice"]);
    transfer_both_ways(&mut scene, 8 * MEBIBYTE);
    let calls = strace.detach();
    assert!(count(&calls, "splice") > 0, "bulk is spliced");
    calls
}

/// `splice(9, NULL, 14, NULL, 262144, SPLICE_F_MOVE|SPLICE_F_NONBLOCK) = 65536`.
fn length(call: &Call) -> u64 {
    let length = call.text.split(", ").nth(4);
    length
        .and_then(|length| length.parse().ok())
        .unwrap_or_else(|| panic!("{call:?}"))
}

/// `bytes` each way at once, ended in order.
#[track_caller]
fn transfer_both_ways(scene: &mut Scene, bytes: u64) {
    let both = [(true, 21), (false, 22)].map(|(upstream, seed)| {
        let (writer, reader) = scene.direction(upstream);
        let (mut writer, mut reader) = (writer.try_clone().unwrap(), reader.try_clone().unwrap());
        let sender = thread::spawn(move || {
            Blocks::new(seed).send(&mut writer, bytes).unwrap();
            writer.end();
        });
        let receiver = thread::spawn(move || Blocks::new(seed).receive_to_end(&mut reader));
        (sender, receiver)
    });
    for (sender, receiver) in both {
        sender.join().unwrap();
        let received = receiver.join().unwrap();
        assert_eq!((received.bytes, received.finish), (bytes, Finish::Fin));
    }
}
