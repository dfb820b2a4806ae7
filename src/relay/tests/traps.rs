//! One test or more for each guard of the folder's `mod.rs`, by the number of its trap. Each fails
//! without its guard.

use std::io::ErrorKind;

use super::script::{
    BROKEN, Bench, FULL, INTERRUPTED, INVALID, RESET, Receive, Send, SpliceIn, SpliceOut, Unload,
    WOULD_BLOCK,
};
use crate::relay::Progress;
use crate::relay::flow::Turn;

#[test]
fn trap_01_a_splice_that_would_block_does_not_prove_an_empty_source() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(WOULD_BLOCK), Receive(Ok(100)), Send(Ok(100))]);
    assert!(bench.is_delivered());
}

#[test]
fn trap_01_a_fill_waits_until_the_pipe_is_empty() {
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(FULL)),
        SpliceOut(Ok(10)),
        SpliceOut(WOULD_BLOCK),
    ]);
    bench.flow.source_is_ready();
    assert!(bench.rests());
    bench.flow.target_is_ready();
    let asked = bench.turn(&[
        SpliceOut(Ok(FULL - 10)),
        SpliceIn(WOULD_BLOCK),
        Receive(WOULD_BLOCK),
    ]);
    assert_eq!(asked[0], FULL - 10);
}

#[test]
fn trap_02_a_copy_reads_on_after_a_blocked_target_without_a_new_edge() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(FULL)), Send(WOULD_BLOCK)]);
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(FULL)), Receive(Ok(1)), Send(Ok(1))]);
    assert!(bench.is_delivered());
}

#[test]
fn trap_02_a_splice_reads_on_after_a_blocked_target_without_a_new_edge() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(9_000)), SpliceOut(WOULD_BLOCK)]);
    bench.flow.target_is_ready();
    bench.turn(&[
        SpliceOut(Ok(9_000)),
        SpliceIn(Ok(8_000)),
        SpliceOut(Ok(8_000)),
        SpliceIn(WOULD_BLOCK),
        Receive(WOULD_BLOCK),
    ]);
}

#[test]
fn trap_02_a_used_up_budget_leaves_the_source_ready() {
    let mut bench = Bench::with_pipes(0);
    bench.rounds_of_a_turn(&[Receive(Ok(FULL)), Send(Ok(FULL))]);
    bench.turn(&[Receive(Ok(7)), Send(Ok(7))]);
}

#[test]
fn trap_03_a_short_read_at_the_urgent_mark_does_not_empty_the_source() {
    let mut bench = Bench::new();
    bench.flow.source_is_urgent();
    bench.turn(&[
        Receive(Ok(3)),
        Send(Ok(3)),
        Receive(Ok(5)),
        Send(Ok(5)),
        Receive(WOULD_BLOCK),
    ]);
    bench.flow.source_is_ready();
    bench.turn(&[Receive(Ok(3)), Send(Ok(3))]);
}

#[test]
fn trap_03_a_short_read_at_the_urgent_mark_is_not_the_end() {
    let mut bench = Bench::new();
    bench.flow.source_is_ending();
    bench.flow.source_is_urgent();
    bench.turn(&[
        Receive(Ok(3)),
        Send(Ok(3)),
        Receive(Ok(5)),
        Send(Ok(5)),
        Receive(Ok(0)),
    ]);
    assert_eq!(bench.progress(), Progress::Ended);
    assert!(bench.is_delivered());
}

#[test]
fn trap_03_a_flow_that_has_seen_urgent_data_copies_for_good() {
    let mut bench = Bench::bulk();
    bench.flow.source_is_urgent();
    let full = [Receive(Ok(FULL)), Send(Ok(FULL))];
    bench.turn(&[&full[..], &full, &full, &[Receive(WOULD_BLOCK)]].concat());
}

#[test]
fn trap_03_a_pipe_in_use_is_drained_when_urgent_data_comes() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(FULL)), SpliceOut(WOULD_BLOCK)]);
    bench.flow.source_is_urgent();
    bench.flow.target_is_ready();
    bench.turn(&[SpliceOut(Ok(FULL)), Receive(WOULD_BLOCK)]);
    assert_eq!(bench.pipes.lent(), 0);
}

#[test]
fn trap_03_a_read_steps_over_a_mark_that_stalls_the_splice() {
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(9_000)),
        SpliceOut(Ok(9_000)),
        SpliceIn(WOULD_BLOCK),
        Receive(Ok(FULL)),
        Send(Ok(FULL)),
        SpliceIn(Ok(9_000)),
        SpliceOut(Ok(9_000)),
        SpliceIn(WOULD_BLOCK),
        Receive(WOULD_BLOCK),
    ]);
}

#[test]
fn trap_04_a_splice_of_nothing_is_not_the_end_and_not_tried_again() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(0)), Receive(Ok(100)), Send(Ok(100))]);
    assert_eq!(bench.progress(), Progress::Flowing);
    bench.flow.source_is_ready();
    bench.turn(&[Receive(Ok(0))]);
    assert_eq!(bench.progress(), Progress::Ended);
}

#[test]
fn trap_04_a_short_splice_before_the_end_is_not_the_end() {
    let mut bench = Bench::bulk();
    bench.flow.source_is_ending();
    bench.turn(&[
        SpliceIn(Ok(10)),
        SpliceOut(Ok(10)),
        SpliceIn(Ok(9_000)),
        SpliceOut(Ok(9_000)),
        SpliceIn(Ok(0)),
        Receive(Ok(0)),
    ]);
    assert_eq!(bench.progress(), Progress::Ended);
    assert!(bench.is_delivered());
}

#[test]
fn trap_04_a_short_read_before_a_known_end_is_the_end() {
    let mut bench = Bench::new();
    bench.flow.source_is_ending();
    bench.turn(&[Receive(Ok(100)), Send(Ok(100))]);
    assert_eq!(bench.progress(), Progress::Ended);
}

#[test]
fn trap_04_a_full_read_before_a_known_end_is_not_the_end() {
    let mut bench = Bench::new();
    bench.flow.source_is_ending();
    bench.turn(&[
        Receive(Ok(FULL)),
        Send(Ok(FULL)),
        Receive(Ok(1)),
        Send(Ok(1)),
    ]);
    assert_eq!(bench.progress(), Progress::Ended);
}

#[test]
fn trap_05_an_end_waits_for_the_stash() {
    let mut bench = Bench::new();
    bench.flow.source_is_ending();
    bench.turn(&[Receive(Ok(100)), Send(Ok(40))]);
    assert_eq!(bench.progress(), Progress::Flowing);
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(60))]);
    assert_eq!(bench.progress(), Progress::Ended);
}

#[test]
fn trap_05_an_end_waits_for_the_pipe() {
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(9_000)),
        SpliceOut(Ok(1)),
        SpliceOut(WOULD_BLOCK),
    ]);
    bench.flow.source_is_ending();
    assert!(bench.rests());
    assert_eq!(bench.progress(), Progress::Flowing);
    bench.flow.target_is_ready();
    bench.turn(&[SpliceOut(Ok(8_999)), SpliceIn(Ok(0)), Receive(Ok(0))]);
    assert_eq!(bench.progress(), Progress::Ended);
    assert!(bench.is_delivered());
}

#[test]
fn trap_06_a_failure_is_remembered_though_the_kernel_reports_it_once() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(FULL)), Send(Ok(FULL)), Receive(RESET)]);
    assert_eq!(bench.progress(), Progress::SourceFailed);
    // The next read would answer 0.
    bench.flow.source_is_ending();
    assert!(bench.rests());
    assert_eq!(bench.progress(), Progress::SourceFailed);
}

#[test]
fn trap_06_a_failure_that_a_splice_meets_is_remembered() {
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Ok(100)),
        SpliceOut(Ok(100)),
        SpliceIn(RESET),
        Receive(Ok(0)),
    ]);
    bench.flow.source_is_ready();
    assert!(bench.rests());
    assert_eq!(bench.progress(), Progress::SourceFailed);
    assert_eq!(bench.pipes.lent(), 0);
}

#[test]
fn trap_06_a_failure_that_a_splice_meets_at_the_mark_hides_no_bytes() {
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(RESET),
        Receive(Ok(100)),
        Send(Ok(100)),
        SpliceIn(Ok(0)),
        Receive(Ok(0)),
    ]);
    assert_eq!(bench.progress(), Progress::SourceFailed);
    assert!(bench.is_delivered());
}

#[test]
fn trap_06_a_failure_of_splice_alone_ends_the_flow_without_an_edge() {
    // ENOMEM, say: the socket is well, so it never reports an end.
    let mut bench = Bench::bulk();
    bench.turn(&[
        SpliceIn(Err(ErrorKind::OutOfMemory)),
        Receive(Ok(100)),
        Send(Ok(100)),
        SpliceIn(WOULD_BLOCK),
        Receive(WOULD_BLOCK),
    ]);
    assert_eq!(bench.progress(), Progress::SourceFailed);
    assert!(bench.is_delivered());
}

#[test]
fn trap_06_the_end_of_a_doomed_source_is_a_failure() {
    let mut bench = Bench::new();
    bench.flow.doom();
    bench.turn(&[Receive(Ok(FULL)), Send(Ok(FULL)), Receive(Ok(0))]);
    assert_eq!(bench.progress(), Progress::SourceFailed);
    assert!(bench.is_delivered());
}

#[test]
fn trap_06_a_short_read_before_a_failure_does_not_empty_the_source() {
    // The edge that reported the failure is used up: nothing but reading on finds it.
    for failure in [RESET, Ok(0)] {
        let mut bench = Bench::new();
        bench.flow.doom();
        bench.turn(&[Receive(Ok(100)), Send(Ok(100)), Receive(failure)]);
        assert_eq!(bench.progress(), Progress::SourceFailed);
        assert!(bench.is_delivered());
    }
}

#[test]
fn trap_06_an_end_that_was_a_failure_becomes_one() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(0))]);
    assert_eq!(bench.progress(), Progress::Ended);
    bench.flow.doom();
    assert_eq!(bench.progress(), Progress::SourceFailed);
}

#[test]
fn trap_06_a_failure_waits_for_what_is_held() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(FULL)), Send(Ok(40))]);
    bench.flow.doom();
    assert!(bench.rests());
    assert_eq!(bench.progress(), Progress::Flowing);
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(FULL - 40)), Receive(RESET)]);
    assert_eq!(bench.progress(), Progress::SourceFailed);
}

#[test]
fn trap_09_a_splice_asks_for_no_more_than_the_pipe_holds() {
    let mut bench = Bench::bulk();
    // The script compares what is asked with the pipe's size.
    let asked = bench.turn(&[SpliceIn(WOULD_BLOCK), Receive(WOULD_BLOCK)]);
    assert!(asked[0] >= FULL);
}

#[test]
fn trap_09_a_source_that_cannot_splice_is_copied_for_good() {
    let mut bench = Bench::bulk();
    let full = [Receive(Ok(FULL)), Send(Ok(FULL))];
    bench.turn(
        &[
            &[SpliceIn(INVALID)],
            &full[..],
            &full,
            &full,
            &[Receive(WOULD_BLOCK)],
        ]
        .concat(),
    );
    assert_eq!(bench.pipes.lent(), 0);
}

#[test]
fn trap_09_a_target_that_cannot_splice_gets_the_pipe_by_copy() {
    let mut bench = Bench::bulk();
    let full = [Receive(Ok(FULL)), Send(Ok(FULL))];
    bench.turn(
        &[
            &[
                SpliceIn(Ok(9_000)),
                SpliceOut(INVALID),
                Unload(Ok(4_000)),
                Unload(INTERRUPTED),
                Unload(Ok(5_000)),
                Send(Ok(9_000)),
            ],
            &full[..],
            &full,
            &full,
            &[Receive(WOULD_BLOCK)],
        ]
        .concat(),
    );
    assert_eq!(bench.pipes.lent(), 0);
    assert!(bench.is_delivered());
}

#[test]
fn trap_10_a_pipe_that_moves_nothing_fails_the_flow() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(9_000)), SpliceOut(Ok(0))]);
    assert_eq!(bench.progress(), Progress::TargetFailed);
    assert_eq!(bench.pipes.lent(), 0);
}

#[test]
fn trap_10_a_pipe_that_holds_too_little_fails_the_flow() {
    for too_little in [Ok(0), WOULD_BLOCK, BROKEN] {
        let mut bench = Bench::bulk();
        bench.turn(&[
            SpliceIn(Ok(9_000)),
            SpliceOut(INVALID),
            Unload(Ok(8_999)),
            Unload(too_little),
        ]);
        assert_eq!(bench.progress(), Progress::TargetFailed);
        assert_eq!(bench.pipes.lent(), 0);
    }
}

#[test]
fn trap_10_a_send_that_takes_nothing_waits_for_room() {
    let mut bench = Bench::new();
    bench.turn(&[Receive(Ok(100)), Send(Ok(0))]);
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(0))]);
    bench.flow.target_is_ready();
    bench.turn(&[Send(Ok(100))]);
    assert!(bench.is_delivered());
}

#[test]
fn trap_12_a_copying_turn_ends_after_its_budget() {
    let mut bench = Bench::with_pipes(0);
    let rounds = bench.rounds_of_a_turn(&[Receive(Ok(FULL)), Send(Ok(FULL))]);
    assert_eq!(rounds, 4);
}

#[test]
fn trap_12_a_splicing_turn_ends_after_its_budget() {
    let mut bench = Bench::bulk();
    let rounds = bench.rounds_of_a_turn(&[SpliceIn(Ok(FULL)), SpliceOut(Ok(FULL))]);
    assert!((8..=16).contains(&rounds), "{rounds} rounds");
}

#[test]
fn trap_12_a_turn_of_tiny_reads_ends_too() {
    let mut bench = Bench::new();
    bench.flow.source_is_urgent();
    let rounds = bench.rounds_of_a_turn(&[Receive(Ok(1)), Send(Ok(1))]);
    assert!(rounds <= 256, "{rounds} rounds");
}

#[test]
fn trap_12_a_turn_of_tiny_sends_ends_too() {
    let mut bench = Bench::bulk();
    bench.turn(&[SpliceIn(Ok(FULL)), SpliceOut(WOULD_BLOCK)]);
    bench.flow.target_is_ready();
    let rounds = bench.rounds_of_a_turn(&[SpliceOut(Ok(1))]);
    assert!(rounds <= 1024, "{rounds} rounds");
}

#[test]
fn trap_12_a_storm_of_signals_does_not_keep_a_turn() {
    let mut bench = Bench::new();
    let rounds = bench.rounds_of_a_turn(&[Receive(INTERRUPTED)]);
    assert!(rounds <= 256, "{rounds} rounds");
    let (turn, _) = bench.turn_with(&[Receive(Ok(1)), Send(Ok(1))]);
    assert_eq!(turn, Turn::Wait);
}
