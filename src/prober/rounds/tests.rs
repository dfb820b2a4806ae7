//! The loop with real sockets and made-up times: what a stop of the process does to checks, and
//! what the limits do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;

use crossbeam_channel::{Receiver, unbounded};

use super::super::answer::Shortage;
use super::super::{Kit, News};
use super::*;
use crate::config::{AgentCheck, Check, Health, RedisCheck};
use crate::ids::ServerId;
use crate::mailbox::Outbox;
use crate::telemetry::checkup::{Checked, Checkup};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Real polls of at most 50 ms until a condition must hold.
const POLLS_MAX: usize = 200;

struct Driven {
    rounds: Rounds,
    events: Events,
    reports: Receiver<Report>,
    outbox: Outbox<Order>,
    /// Of the addresses that it began with.
    checkups: Vec<Arc<Checkup>>,
}

/// Expects `well` of each address, by a loop that begins at time 0.
fn drive(addresses: &[SocketAddr]) -> Driven {
    let poll = Poll::new().unwrap();
    let (outbox, mailbox) = Mailbox::new(poll.registry(), WAKE).unwrap();
    let (sender, reports) = unbounded();
    let deliver = Box::new(move |report| sender.send(report).unwrap());
    let targets = addresses.iter().enumerate();
    let targets: Vec<_> = targets
        .map(|(index, &address)| target(index, address))
        .collect();
    let driven = Driven {
        rounds: Rounds::new(poll, mailbox, deliver, at(0)),
        events: Events::with_capacity(EVENTS),
        reports,
        outbox,
        checkups: targets.iter().map(|one| Arc::clone(&one.checkup)).collect(),
    };
    driven.change(targets.into_iter().map(Step::Watch));
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
        tls: None,
    };
    Target {
        server: ServerId::new(index),
        name: "pool/server".into(),
        address: address.into(),
        sources: Vec::new(),
        health: Arc::new(health),
        kit: Arc::default(),
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
        self.until(milliseconds, |driven| driven.reports.try_recv().ok())
    }

    /// Turns at `milliseconds` until the first server's checks have come to this.
    fn await_counts(&mut self, milliseconds: u64, counts: [u64; 3]) {
        let counted = |driven: &Self| driven.checkups[0].findings().counts;
        self.until(milliseconds, |driven| {
            (counted(driven) == counts).then_some(())
        });
    }

    fn until<T>(&mut self, milliseconds: u64, found: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..POLLS_MAX {
            self.rounds.rest(at(milliseconds));
            self.rounds
                .wait(&mut self.events, Some(Duration::from_millis(50)));
            self.rounds.turn(&mut self.events, at(milliseconds));
            if let Some(found) = found(self) {
                return found;
            }
        }
        panic!("it has not come to that");
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

/// The server with other settings.
fn with(target: &Target, change: impl FnOnce(&mut Health)) -> Step {
    let mut target = target.clone();
    change(Arc::make_mut(&mut target.health));
    Step::Watch(target)
}

impl Driven {
    /// The first target as it was.
    fn target(&self, address: SocketAddr) -> Target {
        Target {
            checkup: Arc::clone(&self.checkups[0]),
            ..target(0, address)
        }
    }

    fn order(&mut self, step: Step, milliseconds: u64) {
        self.change([step].into_iter());
        self.turn(milliseconds, milliseconds);
    }

    /// Each probe is in the queue once, or has its timer; those that run are counted.
    fn check_books(&mut self) {
        let rounds = &mut self.rounds;
        let mut running = 0;
        for key in rounds.places.keys() {
            let token = rounds.places.token(key);
            let queued = rounds.queue.iter().filter(|one| **one == token).count();
            let is_running = rounds.places.probe(key).unwrap().is_running();
            running += usize::from(is_running);
            let is_armed = rounds.timers.is_armed(key);
            assert_eq!(queued + usize::from(is_armed), 1, "{is_running}");
            assert!(is_armed || !is_running, "a check without a deadline");
        }
        assert_eq!(rounds.in_flight, running);
        assert!(running <= rounds.in_flight_max);
    }
}

#[test]
fn a_single_newcomer_is_checked_in_the_turn_that_finds_it() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    assert_eq!(driven.rounds.in_flight, 1);
    driven.order(Step::Watch(target(1, address)), 1000);
    assert_eq!(driven.rounds.in_flight, 2);
    assert!(listener.accept().is_ok() && listener.accept().is_ok());
}

#[test]
fn ten_thousand_that_come_at_once_are_bounded_work_in_each_turn() {
    let (_listener, address) = listen();
    let mut driven = drive(&vec![address; 10_000]);
    driven.rounds.in_flight_max = 4;
    let mut known = 0;
    while known < 10_000 {
        assert_eq!(
            driven.rounds.rest(at(0)).filter(|_| known > 0),
            (known > 0).then_some(Duration::ZERO)
        );
        driven.turn(0, 0);
        let more = driven.rounds.places.len() - known;
        assert!((1..=STEP_BUDGET).contains(&more), "{more}");
        known += more;
    }
    driven.check_books();
    let mut dues: Vec<_> = (0..10_000).map(|n| driven.probe(n).due()).collect();
    assert_eq!(dues[0], at(0));
    assert!(dues.iter().all(|due| *due < at(1000)));
    dues.sort_unstable();
    dues.dedup();
    assert_eq!(dues.len(), 10_000, "no two are due at once");
}

#[test]
fn other_numbers_leave_a_check_under_way_alone() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    let change = |health: &mut Health| {
        health.interval = Duration::from_secs(1);
        health.fall = NonZeroU32::MIN;
    };
    driven.order(with(&driven.target(address), change), 100);
    driven.check_books();
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    assert!(driven.report_at(150).is_up);
    assert!(driven.probe(0).due() < at(150 + 1500), "the new interval");
    // With the fall of before, it would take three.
    driven.pass(150, 5000);
    assert!(!driven.reports.try_recv().unwrap().is_up);
}

#[test]
fn a_shorter_interval_does_not_wait_for_the_end_of_a_longer_one() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    driven.report_at(50);
    assert!(driven.probe(0).due() > at(2000));
    let change = |health: &mut Health| health.interval = Duration::from_millis(100);
    driven.order(with(&driven.target(address), change), 100);
    assert!(driven.probe(0).due() <= at(250));
    driven.check_books();
}

#[test]
fn another_question_is_asked_at_once_and_the_state_stays() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    assert!(driven.report_at(50).is_up);
    driven.pass(50, 5100);
    let (mut old, _) = listener.accept().unwrap();
    let change = |health: &mut Health| {
        health.check = Check::SendExpect {
            send: Vec::new(),
            expect: b"better".to_vec(),
        }
    };
    driven.order(with(&driven.target(address), change), 5100);
    driven.check_books();
    assert_eq!(old.read(&mut [0]).unwrap(), 0, "the old one is closed");
    let (mut new, _) = listener.accept().unwrap();
    new.write_all(b"well").unwrap();
    drop(new);
    // What was closed is no check.
    driven.await_counts(5200, [1, 1, 0]);
    assert!(driven.reports.is_empty(), "one bad answer of three");
}

#[test]
fn another_kind_of_check_has_to_fail_as_often_as_any() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    assert!(driven.report_at(50).is_up);
    drop(listener);
    let change = |health: &mut Health| {
        health.check = Check::Tcp;
        health.interval = Duration::from_millis(100);
    };
    driven.order(with(&driven.target(address), change), 100);
    driven.await_counts(100, [1, 1, 0]);
    assert!(driven.reports.is_empty(), "one bad answer of three");
    assert_eq!(driven.checkups[0].findings().is_up, Some(true));
    driven.pass(100, 1000);
    let report = driven.reports.try_recv().unwrap();
    assert_eq!(report.reason.to_string(), "connection refused");
    assert!(!report.is_up);
}

#[test]
fn another_kind_of_check_has_to_pass_as_often_as_any() {
    let (listener, address) = listen();
    drop(listener);
    let mut driven = drive(&[address]);
    assert!(!driven.report_at(0).is_up);
    let _listener = TcpListener::bind(address).unwrap();
    let change = |health: &mut Health| {
        health.check = Check::Tcp;
        health.interval = Duration::from_millis(100);
    };
    driven.order(with(&driven.target(address), change), 100);
    driven.await_counts(100, [1, 1, 0]);
    assert!(driven.reports.is_empty(), "one good answer of two");
    driven.pass(100, 1000);
    assert!(driven.reports.try_recv().unwrap().is_up);
}

#[test]
fn a_new_check_that_cannot_be_made_leaves_the_state_as_it_is() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    assert!(driven.report_at(50).is_up);
    let check = Check::Redis(RedisCheck {
        password_file: Some("/nonexistent/password".into()),
    });
    let mut target = driven.target(address);
    Arc::make_mut(&mut target.health).check = check;
    target.kit = Arc::new(Kit::read(&target.health));
    driven.order(Step::Watch(target), 100);
    driven.pass(100, 20_000);
    let findings = driven.checkups[0].findings();
    assert_eq!(findings.last, Some(Checked::Unknown));
    assert_eq!(findings.is_up, Some(true), "{}", findings.reason);
    assert!(driven.reports.is_empty());
}

#[test]
fn a_share_that_an_agent_asked_for_ends_with_another_check() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    let agent = |health: &mut Health| {
        health.check = Check::Agent(AgentCheck { send: Vec::new() });
    };
    driven.order(with(&driven.target(address), agent), 0);
    listener.accept().unwrap().0.write_all(b"25%\n").unwrap();
    assert_eq!(driven.report_at(50).share_percent, 25);
    let tcp = |health: &mut Health| health.check = Check::Tcp;
    driven.order(with(&driven.target(address), tcp), 100);
    let report = driven.report_at(100);
    assert_eq!((report.news, report.share_percent), (News::Share, 100));
    assert_eq!(driven.checkups[0].findings().share_percent, 100);
}

#[test]
fn a_server_that_is_forgotten_during_its_check_is_silent() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"well").unwrap();
    driven
        .rounds
        .wait(&mut driven.events, Some(Duration::from_secs(10)));
    assert!(!driven.events.is_empty(), "the answer is there");
    driven.rounds.forget(ServerId::new(0), at(100));
    driven.rounds.turn(&mut driven.events, at(100));
    assert_eq!(driven.rounds.in_flight, 0);
    driven.pass(100, 10_000);
    assert!(driven.reports.is_empty());
    assert_eq!(
        driven.rounds.rest(at(10_000)),
        None,
        "nothing is left to do"
    );
    assert_eq!(served.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    driven.order(Step::Forget(ServerId::new(0)), 10_000);
}

#[test]
fn what_is_meant_for_a_forgotten_server_does_not_hit_its_successor() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.pass(0, 100);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    driven
        .rounds
        .wait(&mut driven.events, Some(Duration::from_secs(10)));
    let (_silent, other) = listen();
    driven.rounds.forget(ServerId::new(0), at(100));
    driven.rounds.watch(target(1, other), at(100));
    assert_eq!(driven.rounds.places.find(ServerId::new(1)), Some(0));
    driven.rounds.turn(&mut driven.events, at(100));
    assert!(driven.reports.is_empty());
    driven.check_books();
    // Its deadline is its own too.
    driven.pass(100, 2050);
    assert!(driven.reports.is_empty());
    driven.pass(2050, 2200);
    let report = driven.reports.try_recv().unwrap();
    assert_eq!((report.server, report.is_up), (ServerId::new(1), false));
}

#[test]
fn a_queue_of_forgotten_servers_begins_nothing_twice() {
    let (_listener, address) = listen();
    let mut driven = drive(&[]);
    driven.rounds.in_flight_max = 0;
    for server in 0..10 {
        driven.order(Step::Watch(target(server, address)), 0);
        driven.order(Step::Forget(ServerId::new(server)), 0);
    }
    driven.order(Step::Watch(target(10, address)), 0);
    assert_eq!(driven.rounds.places.find(ServerId::new(10)), Some(0));
    driven.rounds.in_flight_max = 4;
    driven.turn(0, 50);
    assert_eq!(driven.rounds.in_flight, 1);
    assert!(driven.rounds.queue.is_empty());
    assert_eq!(driven.rounds.lag.checks(), 1);
}

#[test]
fn each_check_is_noted_and_a_verdict_before_its_report() {
    let (listener, address) = listen();
    let mut driven = drive(&[address]);
    driven.turn(0, 0);
    listener.accept().unwrap().0.write_all(b"well").unwrap();
    driven.report_at(50);
    let findings = driven.checkups[0].findings();
    assert_eq!((findings.is_up, findings.since), (Some(true), at(50)));
    assert_eq!(findings.last, Some(Checked::Ok));
    assert_eq!(&*findings.reason, "answered as expected");
    drop(listener);
    driven.pass(50, 5100);
    driven.await_counts(5100, [1, 1, 0]);
    let shortage = Answer::Unknown(Reason::Shortage(Shortage::Descriptors));
    driven.rounds.end(0, shortage, at(5200));
    let findings = driven.checkups[0].findings();
    assert_eq!(findings.counts, [1, 1, 1]);
    assert_eq!(&*findings.reason, "out of file descriptors");
    assert_eq!((findings.is_up, findings.since), (Some(true), at(50)));
    driven.order(Step::Forget(ServerId::new(0)), 5200);
    assert_eq!(driven.checkups[0].findings().is_up, None);
}

#[test]
fn however_targets_come_and_go_the_books_are_right() {
    let (_silent, address) = listen();
    let (listener, refusing) = listen();
    drop(listener);
    let mut random = fastrand::Rng::with_seed(7);
    let mut driven = drive(&[]);
    driven.rounds.in_flight_max = 5;
    let mut time = 0;
    for _ in 0..1500 {
        let server = random.usize(0..12);
        let at_port = if server.is_multiple_of(3) {
            refusing
        } else {
            address
        };
        let target = target(server, at_port);
        let step = match random.u8(0..6) {
            0 | 1 => Step::Watch(target),
            2 => with(&target, |health| health.interval /= 10),
            3 => with(&target, |health| health.check = Check::Tcp),
            _ => Step::Forget(target.server),
        };
        driven.change([step].into_iter().take(random.usize(0..2)));
        let next = time + random.u64(0..400);
        driven.turn(time, next);
        driven.check_books();
        time = next;
    }
    assert!(driven.rounds.lag.checks() > 100);
}
