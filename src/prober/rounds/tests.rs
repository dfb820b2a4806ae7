//! The loop with real sockets and made-up times: what a stop of the process does to checks, and
//! what the limits do.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;

use crossbeam_channel::{Receiver, unbounded};

use super::super::answer::Shortage;
use super::*;
use crate::config::{Check, Health};
use crate::ids::ServerId;
use crate::mailbox::Outbox;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Real polls of at most 50 ms until a condition must hold.
const POLLS_MAX: usize = 200;

struct Driven {
    rounds: Rounds,
    events: Events,
    reports: Receiver<Report>,
    outbox: Outbox<Order>,
}

/// Expects `well` of each address, by a loop that begins at time 0.
fn drive(addresses: &[SocketAddr]) -> Driven {
    let poll = Poll::new().unwrap();
    let (outbox, mailbox) = Mailbox::new(poll.registry(), WAKE).unwrap();
    let (sender, reports) = unbounded();
    let deliver = Box::new(move |report| sender.send(report).unwrap());
    let driven = Driven {
        rounds: Rounds::new(poll, mailbox, deliver, at(0)),
        events: Events::with_capacity(EVENTS),
        reports,
        outbox,
    };
    let steps = addresses.iter().enumerate();
    driven.change(steps.map(|(index, &address)| Step::Watch(target(index, address))));
    driven
}

fn target(index: usize, address: SocketAddr) -> Target {
    let health = Health {
        check: Check::SendExpect {
            send: Vec::new(),
            expect: b"well".to_vec(),
        },
        interval: Duration::from_secs(5),
        timeout: TIMEOUT,
        rise: NonZeroU32::new(2).unwrap(),
        fall: NonZeroU32::new(3).unwrap(),
        port: None,
    };
    Target {
        server: ServerId::new(index),
        name: "pool/server".into(),
        address,
        health: Arc::new(health),
        checkup: Arc::default(),
    }
}

fn at(milliseconds: u64) -> Now {
    Now::from_nanoseconds(milliseconds * 1_000_000)
}

impl Driven {
    /// Puts steps into the mailbox: the next turn finds them.
    fn change(&self, steps: impl Iterator<Item = Step>) {
        self.outbox.send(Order::Change(steps.collect())).unwrap();
    }

    /// The probe of the `index`-th server.
    fn probe(&mut self, index: usize) -> &mut Probe {
        let key = self.rounds.places.find(ServerId::new(index)).unwrap();
        self.rounds.places.probe(key).unwrap()
    }

    /// The loop rested at `from` and wakes at `to`, with whatever the kernel has by then.
    fn turn(&mut self, from: u64, to: u64) {
        self.rounds.rest(at(from));
        self.rounds.wait(&mut self.events, Some(Duration::ZERO));
        self.rounds.turn(&mut self.events, at(to));
    }

    /// Turns at `milliseconds` until something was reported.
    fn report_at(&mut self, milliseconds: u64) -> Report {
        for _ in 0..POLLS_MAX {
            self.rounds.rest(at(milliseconds));
            self.rounds
                .wait(&mut self.events, Some(Duration::from_millis(50)));
            self.rounds.turn(&mut self.events, at(milliseconds));
            if let Ok(report) = self.reports.try_recv() {
                return report;
            }
        }
        panic!("nothing was reported");
    }

    /// Turns every 50 ms of made-up time, as the loop does by itself.
    fn pass(&mut self, from: u64, to: u64) {
        for time in (from..to).step_by(50) {
            self.turn(time, (time + 50).min(to));
        }
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_silent_server_is_down_when_its_time_is_over() {
    let (_listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 1950);
    assert!(driven.reports.is_empty());
    driven.pass(1950, 2100);
    let report = driven.reports.try_recv().unwrap();
    assert!(!report.is_up);
    assert_eq!(report.reason, Reason::Timeout(TIMEOUT));
}

#[test]
fn a_check_during_which_the_process_was_stopped_is_repeated() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    driven.turn(100, 20_000);
    assert!(
        driven.reports.is_empty(),
        "a stop is not the server's failure"
    );
    assert_eq!(driven.rounds.in_flight, 0);
    assert!(driven.probe(0).due() < at(21_100), "it is repeated soon");

    driven.pass(20_000, 21_100);
    assert_eq!(driven.rounds.in_flight, 1);
    let _stale = listener.accept().unwrap();
    listener
        .accept()
        .unwrap()
        .0
        .write_all(b"all is well")
        .unwrap();
    assert!(driven.report_at(21_150).is_up);
}

#[test]
fn a_stop_in_the_middle_of_a_check_counts_too() {
    let (_listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    driven.turn(100, 1500);
    driven.pass(1500, 2100);
    assert!(driven.reports.is_empty());
    assert_eq!(driven.rounds.in_flight, 0);
}

#[test]
fn an_answer_that_came_while_we_were_stopped_counts() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"well").unwrap();
    // On loopback the bytes are there once the write has returned.
    driven.rounds.rest(at(100));
    driven.events.clear();
    driven.rounds.turn(&mut driven.events, at(20_000));
    let report = driven.reports.try_recv().unwrap();
    assert!(report.is_up);
}

#[test]
fn a_refusal_counts_however_late_it_is_read() {
    let (listener, address) = listen();
    drop(listener);
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    driven.turn(0, 20_000);
    let report = driven.reports.try_recv().unwrap();
    assert_eq!(report.reason.to_string(), "connection refused");
}

#[test]
fn checks_beyond_the_cap_wait_and_get_their_whole_time() {
    let listeners: Vec<_> = (0..5).map(|_| listen()).collect();
    let addresses: Vec<_> = listeners.iter().map(|(_, address)| *address).collect();
    let mut driven = drive(&addresses);
    driven.rounds.in_flight_max = 2;
    for (from, reported) in [(0, 0), (2200, 2), (4400, 4), (6600, 5)] {
        assert_eq!(driven.reports.len(), reported, "at {from}");
        for time in (from..from + 2200).step_by(50) {
            driven.turn(time, time + 50);
            assert!(driven.rounds.in_flight <= 2);
        }
    }
    assert!(
        driven.rounds.lag.quantile(0.9) > Duration::from_secs(4),
        "the wait is our lateness"
    );
    assert!(
        driven
            .reports
            .try_iter()
            .all(|report| report.reason == Reason::Timeout(TIMEOUT))
    );
}

#[test]
fn a_shortage_is_no_answer_and_is_tried_again() {
    let (_listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 50);
    let shortage = Answer::Unknown(Reason::Shortage(Shortage::Descriptors));
    driven.rounds.end(0, shortage, at(50));
    assert!(driven.reports.is_empty());
    assert_eq!(driven.rounds.in_flight, 0);
    assert!(driven.probe(0).due() < at(1100));
    driven.pass(50, 1150);
    assert_eq!(driven.rounds.in_flight, 1);
}

#[test]
fn an_event_for_an_earlier_check_is_dropped() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    driven
        .rounds
        .wait(&mut driven.events, Some(Duration::from_secs(10)));
    let event = driven.events.iter().next().expect("the answer is there");
    let (token, ready) = (event.token(), Readiness::of(event));
    let stale = Token(token.0.wrapping_sub(1 << 32));
    assert!(driven.rounds.places.follow(stale).is_none());
    let (_, probe) = driven.rounds.places.follow(token).unwrap();
    let answer = probe.advance(ready, &mut driven.rounds.buffer);
    assert_eq!(answer, Some(Answer::Good(Reason::Matched)));
}
