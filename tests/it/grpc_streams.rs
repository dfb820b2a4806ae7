//! gRPC streams through the death of a server: Python's grpcio on both ends, numbered messages.
//!
//! `EVENKEEL_SOAK_SECONDS` has it go on for longer than the moment of a usual run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use evenkeel::clock::Now;

use crate::harness::daemons::Daemon;
use crate::harness::lines::{AccessLine, Lines};
use crate::harness::peers::Refusing;
use crate::harness::program::Evenkeel;
use crate::harness::tools::debian_python;
use crate::harness::{eventually_some, pause, with_health};

const CHANNELS: usize = 8;

/// How long streams run, half of it before the server dies.
const USUAL_SECONDS: u64 = 3;

fn script() -> Command {
    let mut command = Command::new(debian_python());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    command.arg(folder.join("grpc_streams.py"));
    command
}

fn server(name: &str) -> Daemon {
    let port = Refusing::new();
    let number = port.address().port().to_string();
    let mut command = script();
    Daemon::start(command.args(["serve", &number, name]), port, "KILL")
}

/// The client, whose streams run until its input is closed.
struct Client {
    child: Child,
    said: Lines,
}

impl Client {
    fn start(evenkeel: &Evenkeel) -> Self {
        let mut command = script();
        let port = evenkeel.address().port().to_string();
        command.args(["talk", &port, &CHANNELS.to_string()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout: ChildStdout = child.stdout.take().expect("stdout is piped");
        let said = Lines::gather(stdout);
        Self { child, said }
    }

    /// What it has told so far with this word.
    fn events(&self, word: &str) -> Vec<Event> {
        let lines = self.said.all();
        let events = lines.iter().map(|line| Event::parse(line));
        events.filter(|event| event.word == word).collect()
    }

    /// Waits for `count` events with this word, and gives all there are.
    #[track_caller]
    fn expect(&self, word: &str, count: usize) -> Vec<Event> {
        eventually_some(&format!("{count} streams {word}"), || {
            let events = self.events(word);
            (events.len() >= count).then_some(events)
        })
    }

    /// Ends its streams in order, and waits for its own end.
    #[track_caller]
    fn finish(&mut self) {
        drop(self.child.stdin.take());
        let status = eventually_some("the client ends", || self.child.try_wait().unwrap());
        self.said.wait_for_end();
        assert!(status.success(), "{status}: {}", self.said.text());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Either fails only when the process is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[derive(Debug)]
struct Event {
    word: String,
    channel: usize,
    server: String,
    more: String,
}

impl Event {
    fn parse(line: &str) -> Self {
        let mut words = line.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        Self {
            word: next(),
            channel: next().parse().unwrap(),
            server: next(),
            more: next(),
        }
    }
}

/// The channels of these events, lowest first.
fn channels<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<usize> {
    let mut channels: Vec<_> = events.into_iter().map(|event| event.channel).collect();
    channels.sort_unstable();
    channels
}

fn run_for(time: Duration) {
    let until = Now::read() + time;
    while Now::read() < until {
        pause(until.since(Now::read()));
    }
}

#[test]
fn a_server_s_death_ends_its_streams_at_once_and_no_other() {
    let seconds = std::env::var("EVENKEEL_SOAK_SECONDS");
    let seconds = seconds.map_or(USUAL_SECONDS, |seconds| seconds.parse().unwrap());
    let half = Duration::from_secs(seconds) / 2;
    let (mut dying, staying) = (server("dying"), server("staying"));
    let pool = "    algorithm: round_robin\n    health: {interval: 200ms}";
    let servers = [dying.address(), staying.address()];
    let evenkeel = Evenkeel::start(&with_health("workers: 2", pool, &servers));
    let mut client = Client::start(&evenkeel);
    let begun = client.expect("begun", CHANNELS);
    let (on_dying, on_staying): (Vec<_>, Vec<_>) =
        begun.iter().partition(|event| event.server == "dying");
    assert!(!on_dying.is_empty() && !on_staying.is_empty(), "{begun:?}");
    run_for(half);

    assert!(client.events("lost").is_empty(), "{}", client.said.text());
    dying.stop();
    let stopped = Now::read();
    let lost = client.expect("lost", on_dying.len());
    let noticed = Now::read().since(stopped);
    assert_eq!(channels(&lost), channels(on_dying), "{lost:?}");
    assert!(
        lost.iter().all(|event| event.more == "UNAVAILABLE"),
        "{lost:?}"
    );
    // The next call on the same channel.
    let begun = client.expect("begun", CHANNELS + lost.len());
    let again = &begun[CHANNELS..];
    assert_eq!(channels(again), channels(&lost));
    assert!(
        again.iter().all(|event| event.server == "staying"),
        "{begun:?}"
    );
    run_for(half);

    client.finish();
    assert_eq!(client.events("lost").len(), lost.len());
    let whole = client.events("whole");
    assert_eq!(channels(&whole), (0..CHANNELS).collect::<Vec<_>>());
    assert!(
        whole.iter().all(|event| event.server == "staying"),
        "{whole:?}"
    );
    let counts = whole.iter().map(|event| event.more.parse::<u64>().unwrap());
    let messages: u64 = counts.sum();
    assert!(messages > 0);
    let more = connections_more(&evenkeel, dying.address(), lost.len());
    // A call may miss on a connection that has just ended, so at most one for each of those.
    let missed = client.events("missed");
    assert!(missed.len() <= lost.len() + more, "{missed:?}");
    println!(
        "{messages} messages whole on {CHANNELS} streams in {seconds} s; \
         {} lost ones were told after {noticed:?}, {} calls missed, {more} connections more",
        lost.len(),
        missed.len(),
    );
    let lost = channels(&lost);
    let is_of_lost = |event: &Event| lost.contains(&event.channel);
    assert!(missed.iter().all(is_of_lost), "{missed:?}");
}

/// Waits for all to end, and gives how many there were beyond one for each stream. While a server
/// dies, its kernel still takes connections that it then resets: a channel that has lost its stream
/// may find that once, and has to wait before it tries again, when the server is long gone.
#[track_caller]
fn connections_more(evenkeel: &Evenkeel, dying: SocketAddr, lost: usize) -> usize {
    let dying = dying.to_string();
    let (at_dying, at_staying) = eventually_some("all connections end", || {
        let ends = evenkeel.ends(CHANNELS + lost);
        let at_dying = |end: &AccessLine| end.field("server") == dying;
        let sides: (Vec<_>, Vec<_>) = ends.into_iter().partition(at_dying);
        (sides.1.len() >= CHANNELS).then_some(sides)
    });
    let is_server_s = |end: &AccessLine| matches!(end.end(), "server_closed" | "server_reset");
    assert!(at_dying.iter().all(is_server_s), "{at_dying:?}");
    assert!((lost..=2 * lost).contains(&at_dying.len()), "{at_dying:?}");
    assert_eq!(at_staying.len(), CHANNELS, "{at_staying:?}");
    assert!(!at_staying.iter().any(is_server_s), "{at_staying:?}");
    at_dying.len() - lost
}
