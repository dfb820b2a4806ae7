//! `top` without a terminal: what the model makes of answers, and what is drawn of it.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::super::view::{Status, tests::example};
use super::model::{Model, Row, Sort, Wish};
use super::{draw, obey};
use crate::clock::Now;

const START: Now = Now::from_nanoseconds(1_000_000_000);

fn read(answer: Value) -> Status {
    serde_json::from_value(answer).unwrap()
}

/// The example a second later: 10 connections more, and bytes.
fn later() -> Value {
    let mut answer = example();
    answer["uptime_seconds"] = json!(11_521.5);
    answer["connections"]["total"] = json!(822);
    answer["bytes"] = json!({"upstream": 4448, "downstream": 42_000_000 + 2_097_152});
    let server = &mut answer["pools"]["web"]["servers"]["b"];
    server["connections"]["total"] = json!(410);
    server["bytes"]["downstream"] = json!(21_000_000 + 2_097_152);
    answer
}

/// A model that has seen two answers, a second apart.
fn model() -> Model {
    let mut model = Model::new("/run/evenkeel/admin.sock".to_owned(), false);
    model.take(Ok(read(example())), START);
    model.take(Ok(read(later())), START + Duration::from_secs(1));
    model
}

fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = START + Duration::from_secs(4);
    terminal
        .draw(|frame| draw::draw(model, now, frame))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let lines = cells.chunks(usize::from(width)).map(|line| line.concat());
    lines.map(|line| line.trim_end().to_owned()).collect()
}

fn press(model: &mut Model, code: KeyCode) -> Wish {
    obey(model, &Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn servers(model: &Model) -> Vec<String> {
    let names = model.rows().into_iter().filter_map(|row| match row {
        Row::Server { name, .. } => Some(name.to_owned()),
        _ => None,
    });
    names.collect()
}

#[test]
fn a_usual_terminal_shows_everything() {
    assert_eq!(
        screen(&mut model(), 80, 24),
        [
            "evenkeel 0.1.0  ready  up 3h12m",
            "83 of 9000 connections, 10/s, 822 in all",
            "down  2.0M/s                                                                   \u{2588}",
            "up    2.0K/s                                                                   \u{2588}",
            "",
            "POOL/SERVER           STATE       SHARE       ACTIVE CONN/S   UP/S DOWN/S FAILED",
            "web  round_robin                                  82     10      0   2.0M      0",
            "  b                   up          \u{2591}\u{2591}\u{2591}\u{2591}\u{2591}\u{2591}   2%      2     10      0   2.0M      0",
            "  a                   draining    \u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}  98%     80      0      0      0      0",
            "    80 of 120 left, 30 closed, done in about 4s, at 20/s, the rest in 6m52s",
            "db  least_connections                              0      0      0      0      0",
            "  127.0.0.1:9003      down        \u{2591}\u{2591}\u{2591}\u{2591}\u{2591}\u{2591}   0%      0      0      0      0      0",
            "web/old               leaving                      1      0      0      0      2",
            "    1 of 4 left, nobody is cut",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "q leave  s sort: file  p pause  ? help",
        ]
    );
}

#[test]
fn a_small_terminal_shows_what_matters() {
    assert_eq!(
        screen(&mut model(), 40, 10),
        [
            "evenkeel 0.1.0  ready  up 3h12m",
            "83 of 9000 connections, 10/s, 822 in all",
            "POOL/SERVER    STATE       ACTIVE DOWN/S",
            "web  round_robin               82   2.0M",
            "  b            up               2   2.0M",
            "  a            draining        80      0",
            "    80 of 120 left, 30 closed, done in a",
            "db  least_connections           0      0",
            "  127.0.0.1:.. down             0      0",
            "q leave  s sort: file  p pause  ? help",
        ]
    );
}

#[test]
fn no_size_is_too_small() {
    for (width, height) in [(1, 1), (1, 40), (200, 1), (3, 3), (13, 14), (12, 15)] {
        let mut model = model();
        screen(&mut model, width, height);
        model.shows_help = true;
        screen(&mut model, width, height);
        screen(&mut Model::new("/x".to_owned(), true), width, height);
    }
}

#[test]
fn rates_are_what_came_since_the_answer_before() {
    let model = model();
    assert_eq!((model.now.opened, model.now.upstream), (10.0, 2048.0));
    let rates = model.rows().into_iter().find_map(|row| match row {
        Row::Server {
            name: "b", rates, ..
        } => Some(rates),
        _ => None,
    });
    let rates = rates.unwrap();
    assert_eq!((rates.opened, rates.downstream), (10.0, 2_097_152.0));
    assert_eq!(model.history.len(), 1);
}

#[test]
fn another_process_has_no_rates_at_first() {
    let mut model = model();
    let mut answer = example();
    answer["uptime_seconds"] = json!(0.5);
    answer["bytes"] = json!({"upstream": u64::MAX, "downstream": u64::MAX});
    model.take(Ok(read(answer)), START + Duration::from_secs(2));
    assert_eq!(model.now.upstream, 0.0);
    assert_eq!(model.history.len(), 1);
}

#[test]
fn the_history_is_bounded() {
    let mut model = model();
    for second in 2..1000 {
        model.take(Ok(read(later())), START + Duration::from_secs(second));
    }
    assert_eq!(model.history.len(), 300);
}

#[test]
fn a_lost_evenkeel_is_told_and_then_forgiven() {
    let mut model = model();
    model.take(
        Err("connection refused".to_owned()),
        START + Duration::from_secs(3),
    );
    let lines = screen(&mut model, 80, 24);
    assert_eq!(
        lines[1],
        "no answer for 3s, still trying: connection refused"
    );
    assert!(
        lines.iter().any(|line| line.contains("draining")),
        "{lines:#?}"
    );
    model.take(Ok(read(later())), START + Duration::from_secs(4));
    assert!(!screen(&mut model, 80, 24)[1].contains("no answer"));
}

#[test]
fn an_answer_that_does_not_come_is_told() {
    let mut model = Model::new("/x".to_owned(), false);
    // The screen is of four seconds after the start, five after this answer.
    model.take(Ok(read(example())), Now::default());
    let lines = screen(&mut model, 80, 24);
    assert_eq!(lines[1], "no answer for 5s, still waiting");
}

#[test]
fn before_the_first_answer_it_says_whom_it_asks() {
    let mut model = Model::new("/run/x.sock".to_owned(), false);
    model.take(Err("there is no socket".to_owned()), START);
    let lines = screen(&mut model, 80, 5);
    assert_eq!(lines[0], "evenkeel: asking /run/x.sock");
    assert_eq!(lines[1], "no answer, still trying: there is no socket");
}

#[test]
fn paused_it_keeps_what_it_shows() {
    let mut model = model();
    press(&mut model, KeyCode::Char('p'));
    model.take(Ok(read(example())), START + Duration::from_secs(2));
    assert_eq!(model.status.as_ref().unwrap().connections.total, 822);
    assert!(screen(&mut model, 80, 24)[0].contains("paused"));
    press(&mut model, KeyCode::Char('p'));
    model.take(Ok(read(later())), START + Duration::from_secs(3));
    assert!(!screen(&mut model, 80, 24)[0].contains("paused"));
}

#[test]
fn servers_are_sorted_within_their_pool() {
    let mut model = model();
    assert_eq!(servers(&model), ["b", "a", "127.0.0.1:9003"]);
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(model.sort, Sort::Active);
    assert_eq!(servers(&model), ["a", "b", "127.0.0.1:9003"]);
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(servers(&model), ["b", "a", "127.0.0.1:9003"]);
}

#[test]
fn scrolling_ends_at_both_ends() {
    let mut model = model();
    screen(&mut model, 40, 8);
    press(&mut model, KeyCode::Up);
    assert_eq!(model.offset, 0);
    press(&mut model, KeyCode::Char('j'));
    assert_eq!(model.offset, 1);
    for key in [
        KeyCode::PageDown,
        KeyCode::PageDown,
        KeyCode::End,
        KeyCode::Down,
    ] {
        press(&mut model, key);
    }
    let lines = screen(&mut model, 40, 8);
    assert!(
        lines[6].contains("1 of 4 left"),
        "the last row is last: {lines:#?}"
    );
    // The end is where the list ends: one step back shows.
    let offset = model.offset;
    press(&mut model, KeyCode::Up);
    assert_eq!(model.offset, offset - 1);
}

#[test]
fn keys_leave_and_help_comes_and_goes() {
    let mut model = model();
    assert_eq!(press(&mut model, KeyCode::Char('?')), Wish::Stay);
    assert!(
        screen(&mut model, 80, 24)
            .iter()
            .any(|line| line.contains("scroll by a page"))
    );
    assert_eq!(press(&mut model, KeyCode::Esc), Wish::Stay);
    assert_eq!(press(&mut model, KeyCode::Esc), Wish::Leave);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Wish::Leave);
    let control = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(obey(&mut model, &control), Wish::Leave);
    assert_eq!(press(&mut model, KeyCode::Char('c')), Wish::Stay);
}

#[test]
fn what_is_amiss_is_told_below() {
    let mut answer = example();
    let pool = &mut answer["pools"]["web"];
    pool["discovery"] = json!([
        {"source": "good.example:80", "addresses": 1, "last": "ok"},
        {"source": "db.example:80", "addresses": 2, "last": "failed", "reason": "no answer",
            "since_seconds": 192.0}]);
    pool["servers"]["b"]["slow_start"] = json!({"percent": 40, "until_seconds": 36.0});
    let mut model = Model::new("/run/evenkeel/admin.sock".to_owned(), false);
    model.take(Ok(read(answer)), START);
    let lines = screen(&mut model, 80, 24);
    let place = lines.iter().position(|line| line.starts_with("web "));
    let below = &lines[place.unwrap() + 1..];
    assert_eq!(
        below[0],
        "  from db.example:80: 2 servers, failed for 3m12s: no answer"
    );
    assert_eq!(
        below[2],
        "    slow start: 40% of its share, all of it in 36s"
    );
}
