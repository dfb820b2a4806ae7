//! `survive_restart`: connections go on after the process was killed, and what cannot is reset.

mod changes;
mod keeper_lost;
mod kinds;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use tempfile::TempDir;

use crate::harness::api::Api;
use crate::harness::blocks::Blocks;
use crate::harness::peers::{Peer, Server, ping};
use crate::harness::proc::Proc;
use crate::harness::program::{Evenkeel, send_signal};
use crate::harness::{eventually, eventually_some, with_pool};

/// Processes that follow each other at one place; keepers that they leave end with this.
struct Line {
    folder: TempDir,
    server: Server,
}

impl Line {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            server: Server::listen(),
        }
    }

    /// With further lines of the listener and of the pool.
    fn start(&self, listener: &str, pool: &str) -> Evenkeel {
        self.start_with(&self.config(listener, pool))
    }

    fn config(&self, listener: &str, pool: &str) -> String {
        let socket = self.folder.path().join("admin.sock");
        let top = format!(
            "workers: 2\nsurvive_restart: true\nshutdown_timeout: 0s\nadmin: {{socket: {}}}",
            socket.display()
        );
        let config = with_pool(&top, pool, &[self.server.address()]);
        config.replace("    pool: ", &format!("{listener}    pool: "))
    }

    fn start_with(&self, config: &str) -> Evenkeel {
        let evenkeel = Evenkeel::start(config);
        // Where the harness looks for it.
        let socket = self.folder.path().join("admin.sock");
        std::os::unix::fs::symlink(socket, evenkeel.folder().join("admin.sock")).unwrap();
        evenkeel
    }

    /// Kills whoever serves after upgrades, which is no child of the test, and waits until the last of its
    /// threads is gone.
    fn kill_serving(&self, evenkeel: &Evenkeel) {
        let (pid, socket) = (evenkeel.proc(), self.folder.path().join("admin.sock"));
        evenkeel.signal("KILL");
        eventually("it is gone", || {
            pid.is_gone() && UnixStream::connect(&socket).is_err()
        });
    }

    fn keeper_place(&self) -> PathBuf {
        self.folder.path().join("admin.sock.keeper")
    }

    /// Those that live.
    fn keepers(&self) -> Vec<Proc> {
        let place = self.keeper_place().display().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains(&format!("\0keeper\0{place}")) && !Proc(*pid).is_gone()
        };
        numbers.filter(is_ours).map(Proc).collect()
    }

    /// The only one.
    fn keeper(&self) -> Proc {
        eventually_some("a keeper", || match self.keepers()[..] {
            [keeper] => Some(keeper),
            _ => None,
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for keeper in self.keepers() {
            send_signal(keeper.0, "KILL");
        }
    }
}

fn kept(keeper: &Proc) -> usize {
    keeper.count("socket:")
}

/// Sockets of the keeper's own: its way to the process, and where it is found.
const OWN: usize = 2;

/// Waits until as many connections are kept.
fn wait_for_kept(keeper: &Proc, connections: usize) {
    eventually("connections are kept", || {
        kept(keeper) >= 2 * connections + OWN
    });
}

fn kill(mut evenkeel: Evenkeel) {
    evenkeel.signal("KILL");
    evenkeel.exit();
}

#[test]
fn all_connections_go_on_after_each_of_three_kills() {
    let line = Line::new();
    let mut evenkeel = line.start("", "");
    let keeper = line.keeper();
    let said = format!("process {} at {}", keeper.0, line.keeper_place().display());
    let is_told = |evenkeel: &Evenkeel, how: &str| {
        let told = evenkeel.errors().wait_for(how);
        assert!(told.contains(&said) && told.contains(" at most "), "{told}");
    };
    is_told(&evenkeel, "keeper started: ");
    let mut pairs: Vec<_> = (0..300).map(|_| evenkeel.pair(&line.server)).collect();
    for _ in 0..3 {
        for (client, serving) in &mut pairs {
            ping(client, serving);
        }
        wait_for_kept(&keeper, pairs.len());
        // On their way when nobody is there.
        let (client, serving) = &mut pairs[0];
        client.write_all(b"up").unwrap();
        kill(evenkeel);
        serving.write_all(b"down").unwrap();
        evenkeel = line.start("", "");
        is_told(&evenkeel, "keeper taken over: ");
        let (client, serving) = &mut pairs[0];
        client.read_exact(&mut [0; 4]).unwrap();
        serving.read_exact(&mut [0; 2]).unwrap();
        for (client, serving) in &mut pairs {
            ping(client, serving);
        }
        pairs.push(evenkeel.pair(&line.server));
        evenkeel.errors().wait_for("reset 0");
    }
    let status = Api::Unix(line.folder.path().join("admin.sock")).status();
    assert_eq!(status["connections"]["active"], pairs.len(), "{status}");
}

#[test]
fn ends_reach_the_other_side_though_sockets_are_kept() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let keeper = line.keeper();
    let mut pairs: Vec<_> = (0..4).map(|_| evenkeel.pair(&line.server)).collect();
    wait_for_kept(&keeper, pairs.len());
    let (client, mut serving) = pairs.pop().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(serving.read(&mut [0]).unwrap(), 0);
    drop(serving);
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    let (client, mut serving) = pairs.pop().unwrap();
    reset(client);
    serving.expect_reset();
    evenkeel.ends(2);
    // The keeper drops what has ended.
    eventually("ended ones are dropped", || kept(&keeper) < 2 * 3 + OWN);
    let (mut client, mut serving) = pairs.pop().unwrap();
    ping(&mut client, &mut serving);
    let (mut last_client, mut last_serving) = pairs.pop().unwrap();
    evenkeel.signal("TERM");
    for peer in [
        &mut client,
        &mut serving,
        &mut last_client,
        &mut last_serving,
    ] {
        peer.expect_reset();
    }
    let place = line.keeper_place();
    eventually("the keeper ends as well", || !place.exists());
}

fn reset(client: TcpStream) {
    let socket = socket2::Socket::from(client);
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[test]
fn headers_half_closed_ones_and_a_slow_reader_s_bytes_go_on() {
    let line = Line::new();
    let evenkeel = line.start("", "    send_proxy: v2\n");
    let keeper = line.keeper();
    let mut pairs: Vec<_> = (0..3).map(|_| evenkeel.pair(&line.server)).collect();
    for (_, serving) in &mut pairs {
        serving.read_exact(&mut [0; 28]).unwrap();
    }
    let [
        (half, half_serving),
        (client, serving),
        (slow, slow_serving),
    ] = &mut pairs[..]
    else {
        panic!("three");
    };
    half.write_all(b"all").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    half_serving.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(half_serving.read(&mut [0]).unwrap(), 0);
    ping(client, serving);
    slow.write_all(&[7; 50_000]).unwrap();
    wait_for_kept(&keeper, 3);
    slow_serving.peek(&mut [0]).unwrap();
    kill(evenkeel);
    let evenkeel = line.start("", "    send_proxy: v2\n");
    ping(client, serving);
    half_serving.write_all(b"answer").unwrap();
    half.read_exact(&mut [0; 6]).unwrap();
    let mut bytes = vec![0; 50_000];
    slow_serving.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
    drop(pairs);
    evenkeel.ends(3);
}

/// Whoever is killed in the middle of a copy has lost what was in its hands: that connection is reset, and
/// no other byte than the next one ever arrives.
#[test]
fn bytes_in_flight_arrive_in_their_order_or_not_at_all() {
    const STREAMS: u64 = 12;
    let line = Line::new();
    let evenkeel = line.start("", "");
    let keeper = line.keeper();
    let pairs: Vec<_> = (0..STREAMS).map(|_| evenkeel.pair(&line.server)).collect();
    wait_for_kept(&keeper, pairs.len());
    let is_over = Arc::new(AtomicBool::new(false));
    let moved = Arc::new(AtomicU64::new(0));
    let streams = pairs
        .into_iter()
        .zip(0..)
        .map(|((mut client, mut serving), seed)| {
            let (is_over, moved) = (is_over.clone(), moved.clone());
            let sending = thread::spawn(move || send(&mut client, seed, &is_over));
            let receiving = thread::spawn(move || receive(&mut serving, seed, &moved));
            (sending, receiving)
        });
    let streams: Vec<_> = streams.collect();
    let go_on = || {
        let before = moved.load(Relaxed);
        eventually("bytes move", || moved.load(Relaxed) > before + 100);
    };
    go_on();
    kill(evenkeel);
    let _evenkeel = line.start("", "");
    is_over.store(true, Relaxed);
    let mut whole = 0;
    for (sending, receiving) in streams {
        let (sent, received) = (sending.join().unwrap(), receiving.join().unwrap());
        // A FIN that arrives says that all has.
        assert!(
            received.is_none() || received == sent,
            "{sent:?} {received:?}"
        );
        whole += u64::from(received.is_some());
    }
    println!("{whole} of {STREAMS} went on");
}

/// How many bytes were sent, if all could be.
fn send(client: &mut TcpStream, seed: u64, is_over: &AtomicBool) -> Option<u64> {
    let mut blocks = Blocks::new(seed);
    while !is_over.load(Relaxed) {
        blocks.send(client, 64 * 1024).ok()?;
    }
    client.shutdown(Shutdown::Write).ok()?;
    Some(blocks.position())
}

/// How many bytes came, each in its place, until FIN.
fn receive(serving: &mut TcpStream, seed: u64, moved: &AtomicU64) -> Option<u64> {
    let (mut blocks, mut buffer) = (Blocks::new(seed), vec![0; 64 * 1024]);
    loop {
        match serving.read(&mut buffer).ok()? {
            0 => return Some(blocks.position()),
            bytes => blocks.check(&buffer[..bytes]).unwrap(),
        }
        moved.fetch_add(1, Relaxed);
    }
}
