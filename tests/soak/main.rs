//! The soak: the real program with two workers between seeded clients and three servers that
//! stall, half-close, reset, send urgent bytes, die and come back, with every byte proven, while it
//! is reloaded, scraped and listed twice a second.
//!
//! ```text
//!   clients (a thread) --> evenkeel --> servers (a thread)
//!        |                    | access log (a FIFO)  |
//!        +--------------> ledger <-------------------+
//! ```
//! Without arguments it runs for a few seconds, as a part of `cargo test`; `scripts/soak` runs it
//! for as long as one likes. Exits with 0 when every connection came to what its plan allows, and
//! the program's descriptors and memory returned to where they were.

#![allow(missing_docs, reason = "a test binary has no public items")]
#![allow(clippy::unwrap_used, reason = "a soak fails by panicking")]

#[allow(dead_code, unused_imports, reason = "the soak uses a part of it")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod clients;
mod crowd;
mod endpoint;
mod ledger;
mod plan;
mod servers;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evenkeel::clock::Now;
use tempfile::TempDir;

use clients::Clients;
use harness::lines::AccessLine;
use harness::program::Evenkeel;
use harness::tools::{succeed, tool};
use harness::{DEADLINE, pause};
use ledger::{Ledger, Totals};
use servers::Servers;

/// What the memory may grow between the run's middle and its end: allocators keep some slack.
const GROWTH_KIB_MAX: u64 = 4 * 1024;

/// What to run.
#[derive(Debug)]
struct Arguments {
    seconds: u64,
    seed: u64,
    connections: usize,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1).collect()) else {
        // The filters of `cargo test NAME` come here too: they ask for other tests.
        println!("soak: not asked for; scripts/soak [--seconds N] [--seed S] [--connections C]");
        return ExitCode::SUCCESS;
    };
    println!("soak: {arguments:?}");
    let totals = run(&arguments);
    report(&arguments, &totals);
    if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(words: Vec<String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        seconds: 5,
        seed: fastrand::u64(..1 << 32),
        connections: 64,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let value: u64 = words.next()?.parse().ok()?;
        match word.as_str() {
            "--seconds" => arguments.seconds = value,
            "--seed" => arguments.seed = value,
            "--connections" => arguments.connections = usize::try_from(value).ok()?,
            _ => return None,
        }
    }
    Some(arguments)
}

fn run(arguments: &Arguments) -> Totals {
    let ledger = Arc::new(Ledger::new(arguments.seed));
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("access.fifo");
    succeed(Command::new(tool("mkfifo")).arg(&fifo));
    read_lines(&fifo, Arc::clone(&ledger));
    let servers = Servers::new(arguments.seed, Arc::clone(&ledger)).unwrap();
    let addresses = servers.addresses();
    let config = move |round| config(round, &fifo, &addresses);
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let serving = thread::spawn(move || servers.run(&stopping).unwrap());

    let evenkeel = Evenkeel::start(&config(arguments.seed));
    let before = evenkeel.holding();
    let broken = Arc::new(AtomicBool::new(false));
    let clients = Clients {
        seed: arguments.seed,
        connections: arguments.connections,
        run: Duration::from_secs(arguments.seconds),
        address: evenkeel.address(),
        ledger: Arc::clone(&ledger),
        broken: Arc::clone(&broken),
    };
    let connecting = thread::spawn(move || clients.run().unwrap());
    let mut round = arguments.seed;
    let memory = watch_memory(&evenkeel, &ledger, || {
        round += 1;
        steer(&evenkeel, &config(round), &ledger);
        connecting.is_finished()
    });
    steer(&evenkeel, &config(arguments.seed), &ledger);
    connecting.join().expect("the clients' thread");
    settle(&ledger);
    stop.store(true, Ordering::SeqCst);
    serving.join().expect("the servers' thread");

    if !broken.load(Ordering::SeqCst) && !returns_to(&evenkeel, &before) {
        ledger.fail(format!(
            "descriptors: {before:?} became {:?}",
            evenkeel.holding()
        ));
    }
    check_memory(&ledger, &memory);
    check_log(&ledger, &evenkeel);
    ledger.close()
}

/// One of many: algorithms, timeouts and a second listener come and go with the rounds.
fn config(round: u64, fifo: &Path, servers: &[SocketAddr]) -> String {
    let algorithms = [
        "round_robin",
        "least_connections",
        "power_of_two",
        "random",
        "ip_hash",
        "least_time",
        "first",
    ];
    let at = usize::try_from(round % algorithms.len() as u64).expect("below seven");
    let pool = format!(
        "    algorithm: {}\n    connect_timeout: {}s\n    \
         health: {{type: tcp, interval: 500ms, timeout: 500ms, rise: 1, fall: 3}}",
        algorithms[at],
        10 + round % 2
    );
    let top = format!("workers: 2\nlog: {{access: {}}}", fifo.display());
    let second = match round % 2 {
        0 => "",
        _ => "\n  second: {bind: 127.0.0.1:0, pool: web}",
    };
    let config = harness::with_health(&top, &pool, servers);
    config.replace("\n    pool: web\n", &format!("\n    pool: web{second}\n"))
}

/// What an operator does meanwhile: another config, and a look at everything.
fn steer(evenkeel: &Evenkeel, config: &str, ledger: &Ledger) {
    evenkeel.rewrite(config);
    let api = evenkeel.api();
    let asked = [
        ("POST", "/api/v1/reload"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/connections"),
    ];
    for (method, path) in asked {
        let answer = api.ask(method, path);
        if answer.status != 200 {
            ledger.fail(format!("{method} {path}: {answer:?}"));
        }
    }
}

/// A thread that tells the ledger every access line.
fn read_lines(fifo: &Path, ledger: Arc<Ledger>) {
    // Opened both ways: opening then waits for nobody.
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .open(fifo)
        .unwrap();
    thread::spawn(move || {
        for line in BufReader::new(fifo).lines().map_while(Result::ok) {
            match AccessLine::parse(&line) {
                Some(line) => ledger.line(line),
                None => ledger.fail(format!("no access line: {line}")),
            }
        }
    });
}

/// Samples resident memory every half second until `over`, and shows how it goes.
fn watch_memory(evenkeel: &Evenkeel, ledger: &Ledger, mut over: impl FnMut() -> bool) -> Vec<u64> {
    let mut samples = Vec::new();
    let start = Now::read();
    while !over() {
        pause(Duration::from_millis(500));
        samples.push(evenkeel.proc().resident_kib());
        if samples.len() % 60 == 0 {
            let seconds = Now::read().since(start).as_secs_f64();
            let bytes = ledger.bytes.load(Ordering::Relaxed) as f64;
            println!("soak: {seconds:.0} s, {:.1} GB received", bytes / 1e9);
        }
    }
    samples
}

/// Waits until every witness of every connection has spoken, or none does any more.
fn settle(ledger: &Ledger) {
    let until = Now::read() + DEADLINE / 4;
    while ledger.open() > 0 && Now::read() < until {
        pause(Duration::from_millis(20));
    }
}

fn returns_to(evenkeel: &Evenkeel, before: &harness::program::Holding) -> bool {
    let until = Now::read() + DEADLINE / 2;
    while evenkeel.holding() != *before {
        if Now::read() > until {
            return false;
        }
        pause(Duration::from_millis(20));
    }
    true
}

/// The last quarter's middle value against that of the quarter before half-time.
fn check_memory(ledger: &Ledger, samples: &[u64]) {
    let quarter = samples.len() / 4;
    if quarter < 2 {
        return;
    }
    let middle = |from: usize| {
        let mut part = samples[from..from + quarter].to_vec();
        part.sort_unstable();
        part[quarter / 2]
    };
    let (early, late) = (middle(quarter), middle(3 * quarter));
    println!("soak: resident memory {early} KiB, later {late} KiB");
    if late > early + GROWTH_KIB_MAX {
        ledger.fail(format!("memory grew from {early} KiB to {late} KiB"));
    }
}

/// The process log tells of no trouble of our own.
fn check_log(ledger: &Ledger, evenkeel: &Evenkeel) {
    let lines = evenkeel.errors().all();
    for line in lines
        .iter()
        .filter(|line| line.contains("ERROR") || line.contains("dropped"))
    {
        ledger.fail(format!("the process log says: {line}"));
    }
}

fn report(arguments: &Arguments, totals: &Totals) {
    for failure in &totals.failures {
        println!("FAILED {failure}");
    }
    println!(
        "soak: seed {}, {} connections, {} bytes upstream, {} downstream",
        arguments.seed, totals.connections, totals.upstream_bytes, totals.downstream_bytes
    );
    println!("soak: ends {:?}", totals.ends);
    println!("soak: {} passed, {} failed", totals.passed, totals.failed);
}
