//! What a turn does apart from the traps: short counts, signals, failures of the target, Nagle's
//! algorithm, and the going and coming of pipes.

use super::script::{
    BROKEN, Bench, FULL, INTERRUPTED, Receive, Send, SpliceIn, SpliceOut, WOULD_BLOCK,
};
use crate::relay::Progress;

#[test]
fn a_request_costs_two_calls() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(100)), Send(Ok(100))]);
    assert_eq!(bench.flow.delivered(), 100);
    assert_eq!(bench.progress(), Progress::Flowing);
}

#[test]
fn nothing_is_read_before_the_target_is_connected() {
    let mut bench = Bench::new();
    bench.flow = crate::relay::Flow::default();
    bench.flow.source_is_ending();
    assert!(bench.rests());
    bench.flow.target_is_ready();
    bench.turn(&[Receive(Ok(5)), Send(Ok(5))]);
    assert_eq!(bench.progress(), Progress::Ended);
}

#[test]
fn a_short_send_waits_for_room_and_goes_on_where_it_stopped() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(FULL)), Send(Ok(40))]);
    assert!(bench.flow.is_holding());
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(60))]);
    bench.flow.target_is_ready();
    let asked = bench.turn(&[Send(Ok(FULL - 100)), Receive(WOULD_BLOCK)]);
    assert_eq!(asked[0], FULL - 100);
    assert!(bench.is_delivered());
}

#[test]
fn a_header_goes_first_whole_and_uncounted() {
    let mut bench = Bench::with_header(50);
    bench.turn(&[Send(Ok(20))]);
    assert!(
        bench.nagle_is_off(),
        "what follows must not wait for an acknowledgement"
    );
    assert!(bench.rests() && bench.flow.is_holding());
    bench.flow.target_is_ready();
    bench.turn(&[Send(INTERRUPTED), Send(WOULD_BLOCK)]);
    assert_eq!(
        (bench.flow.delivered(), bench.progress()),
        (0, Progress::Flowing)
    );
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(30)), Receive(Ok(7)), Send(Ok(7))]);
    assert_eq!(bench.flow.delivered(), 7);
}

#[test]
fn a_header_goes_out_before_the_source_has_said_anything() {
    let mut bench = Bench::with_header(50);
    bench.turn(&[Send(Ok(50)), Receive(WOULD_BLOCK)]);
    assert!(!bench.flow.is_holding());
    let mut ended = Bench::with_header(50);
    ended.flow.source_is_ending();
    ended.turn(&[Send(Ok(50)), Receive(Ok(0))]);
    assert_eq!(
        (ended.flow.delivered(), ended.progress()),
        (0, Progress::Ended)
    );
    let mut broken = Bench::with_header(50);
    broken.turn(&[Send(BROKEN)]);
    assert_eq!(broken.progress(), Progress::TargetFailed);
}

#[test]
fn the_header_of_an_earlier_try_is_forgotten() {
    let mut bench = Bench::with_header(50);
    bench.flow.begin_with(Vec::new());
    assert!(!bench.flow.is_holding());
}

#[test]
fn a_short_splice_out_is_repeated_at_once() {
    // It may have ended at a batch of fragments: only EAGAIN says that there is no room.
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(9_000)),
        SpliceOut(Ok(4_000)),
        SpliceOut(Ok(5_000)),
        SpliceIn(WOULD_BLOCK),
        Receive(WOULD_BLOCK),
    ]);
}

#[test]
fn interrupted_calls_are_repeated() {
    let mut bench = Bench::new();
    bench.turn(&[
        Receive(INTERRUPTED),
        Receive(Ok(100)),
        Send(INTERRUPTED),
        Send(INTERRUPTED),
        Send(Ok(100)),
    ]);
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(9_000)),
        SpliceOut(INTERRUPTED),
        SpliceOut(Ok(9_000)),
        SpliceIn(INTERRUPTED),
        Receive(Ok(100)),
        Send(Ok(100)),
    ]);
    assert!(bench.is_delivered());
}

#[test]
fn a_failed_target_ends_the_flow_and_drops_what_is_held() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(100)), Send(BROKEN)]);
    assert_eq!(bench.progress(), Progress::TargetFailed);
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(100)), Send(Ok(40))]);
    bench.flow.target_is_ready();
    bench.turn(&[Send(BROKEN)]);
    assert_eq!(bench.progress(), Progress::TargetFailed);
    assert!(!bench.flow.is_holding());
    bench.flow.source_is_ready();
    bench.flow.target_is_ready();
    assert!(bench.rests());
}

#[test]
fn a_failed_target_gives_its_pipe_up() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(9_000)), SpliceOut(BROKEN)]);
    assert_eq!(bench.progress(), Progress::TargetFailed);
    assert_eq!(bench.pipes.lent(), 0);
}

#[test]
fn a_released_flow_gives_its_pipe_up() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(9_000)), SpliceOut(WOULD_BLOCK)]);
    assert_eq!(bench.pipes.lent(), 1);
    bench.flow.release(&mut bench.pipes);
    assert_eq!(bench.pipes.lent(), 0);
    bench.flow.release(&mut bench.pipes);
}

#[test]
fn an_empty_pipe_goes_back_within_the_turn() {
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(9_000)),
        SpliceOut(Ok(9_000)),
        SpliceIn(WOULD_BLOCK),
        Receive(WOULD_BLOCK),
    ]);
    assert_eq!(bench.pipes.lent(), 0);
}

#[test]
fn a_bulk_flow_without_a_pipe_copies() {
    let mut bench = Bench::with_pipes(0);
    let full = [Receive(Ok(FULL)), Send(Ok(FULL))];
    bench.turn(&[&full[..], &full, &full, &[Receive(Ok(1)), Send(Ok(1))]].concat());
    assert!(bench.is_delivered());
}

#[test]
fn a_flow_of_small_fills_goes_back_to_copying() {
    let mut bench = Bench::bulk();
    let small = [SpliceIn(Ok(100)), SpliceOut(Ok(100))];
    bench.turn(&[&small[..], &small, &small, &[Receive(Ok(1)), Send(Ok(1))]].concat());
}

#[test]
fn nagles_algorithm_stays_on_for_one_small_send() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(1_220)), Send(Ok(1_220))]);
    assert!(!bench.nagle_is_off());
    bench.flow.source_is_ready();
    bench.turn(&[Receive(Ok(1)), Send(Ok(1))]);
    assert!(bench.nagle_is_off());
}

#[test]
fn nagles_algorithm_is_off_before_a_send_with_a_tail() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(1_221)), Send(WOULD_BLOCK)]);
    assert!(bench.nagle_is_off());
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(100)), Send(Ok(40))]);
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(60))]);
    assert!(bench.nagle_is_off());
}

#[test]
fn bytes_before_a_known_end_are_sent_as_the_last_ones() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(100)), Send(Ok(100))]);
    assert!(!bench.last_was_sent());
    bench.flow.source_is_ending();
    bench.turn(&[Receive(Ok(100)), Send(Ok(60))]);
    assert!(bench.last_was_sent());
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(40))]);
    assert!(bench.last_was_sent());
    assert_eq!(bench.progress(), Progress::Ended);
}
