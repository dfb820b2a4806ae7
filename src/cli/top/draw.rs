//! What `top` looks like: a few lines about the whole, two sparklines, the list, a line of keys.
//!
//! Draws what the model says and decides nothing but what fits: a line that finds no room is left
//! out, from the bottom of this order up.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline};

use super::super::figures::{bytes_per_second, drain, per_second, plain, seconds};
use super::super::output::Tone;
use super::super::view::{Leaving, Server, Status};
use super::columns::{Column, Figures, Layout, bar};
use super::model::{Model, Rates, Row};
use crate::clock::Now;

/// The least height that has room for sparklines above a list of some use.
const SPARKLINES_HEIGHT: u16 = 14;

/// What stands before a sparkline: `down 1023K/s `.
const LABEL_WIDTH: u16 = 12;

/// A process that answers does so within milliseconds, and is asked each second.
const SILENCE_MAX: Duration = Duration::from_secs(4);

const HELP: &[&str] = &[
    "q, Esc, Ctrl-C    leave",
    "j, k, arrows      scroll by a line",
    "PgUp, PgDn        scroll by a page",
    "Home, End         to the first, to the last",
    "s                 sort servers: as in the file, by connections, bytes/s, failed, state",
    "p                 pause, and go on",
    "?                 this help, and back",
    "",
    "UP/S and DOWN/S are bytes a second: up from client to server, down from server to client.",
    "The bar is the server's share of its pool's connections.",
];

/// The part of the screen that is still empty.
struct Room(Rect);

impl Room {
    /// The topmost line, empty where there is none left.
    fn line(&mut self) -> Rect {
        let height = self.0.height.min(1);
        let line = Rect { height, ..self.0 };
        self.0.y += height;
        self.0.height -= height;
        line
    }

    fn last_line(&mut self) -> Rect {
        let height = self.0.height.min(1);
        self.0.height -= height;
        Rect {
            y: self.0.bottom(),
            height,
            ..self.0
        }
    }
}

/// All of it.
pub(super) fn draw(model: &mut Model, now: Now, frame: &mut Frame<'_>) {
    let mut room = Room(frame.area());
    frame.render_widget(title(model), room.line());
    for notice in notices(model, now) {
        frame.render_widget(notice, room.line());
    }
    if model.shows_help {
        for text in HELP {
            frame.render_widget(Line::raw(*text), room.line());
        }
        return;
    }
    let Some(status) = &model.status else {
        return;
    };
    frame.render_widget(totals(model, status), room.line());
    if frame.area().height >= SPARKLINES_HEIGHT {
        sparkline(model, "down", |rates| rates.downstream, frame, room.line());
        sparkline(model, "up", |rates| rates.upstream, frame, room.line());
        room.line();
    }
    let keys = room.last_line();
    list(model, frame, room);
    frame.render_widget(footer(model), keys);
}

fn style(model: &Model, tone: Tone) -> Style {
    let color = match tone {
        Tone::Strong => return Style::new().add_modifier(Modifier::BOLD),
        Tone::Good => Color::Green,
        Tone::Bad => Color::Red,
        Tone::Warning => Color::Yellow,
        Tone::Aside => Color::Cyan,
        Tone::Plain => return Style::new(),
    };
    if model.has_colours {
        Style::new().fg(color)
    } else {
        Style::new()
    }
}

fn title(model: &Model) -> Line<'static> {
    let Some(status) = &model.status else {
        return Line::raw(format!("evenkeel: asking {}", model.socket));
    };
    let (word, tone) = match status.ready {
        true => ("ready", Tone::Good),
        false => ("not ready", Tone::Bad),
    };
    let mut spans = vec![
        Span::styled(
            format!("evenkeel {}", plain(&status.version)),
            style(model, Tone::Strong),
        ),
        Span::raw("  "),
        Span::styled(word, style(model, tone)),
        Span::raw(format!("  up {}", seconds(status.uptime_seconds))),
    ];
    if model.is_paused {
        let text = "  paused, p goes on";
        spans.push(Span::styled(text, style(model, Tone::Warning)));
    }
    Line::from(spans)
}

/// What somebody should know, a line each.
fn notices(model: &Model, now: Now) -> Vec<Line<'static>> {
    let mut notices = Vec::new();
    let mut add = |tone, text| notices.push(Line::styled(text, style(model, tone)));
    if let Some(text) = loss(model, now) {
        add(Tone::Bad, text);
    }
    let Some(status) = &model.status else {
        return notices;
    };
    if !status.ready && !status.reasons.is_empty() {
        add(
            Tone::Bad,
            format!("not ready: {}", plain(&status.reasons.join("; "))),
        );
    }
    if let Some(left) = status.config.confirm_seconds {
        let text = format!(
            "a reload awaits confirmation, taken back in {}",
            seconds(left)
        );
        add(Tone::Warning, text);
    }
    notices
}

/// A question that failed, or has been waiting for its answer for too long.
fn loss(model: &Model, now: Now) -> Option<String> {
    let silence = model.silence(now);
    let since = silence.map_or_else(String::new, |time| format!(" for {}s", time.as_secs()));
    match &model.lost {
        Some(why) => Some(format!("no answer{since}, still trying: {}", plain(why))),
        None if silence > Some(SILENCE_MAX) => Some(format!("no answer{since}, still waiting")),
        None => None,
    }
}

fn totals(model: &Model, status: &Status) -> Line<'static> {
    let connections = status.connections;
    let mut text = format!(
        "{} of {} connections, {}/s, {} in all",
        connections.active,
        connections.max,
        per_second(model.now.opened),
        connections.total
    );
    if connections.refused > 0 {
        text.push_str(&format!(", {} refused", connections.refused));
    }
    Line::raw(text)
}

/// A rate now and lately, the latest at the right.
fn sparkline(model: &Model, name: &str, of: fn(&Rates) -> f64, frame: &mut Frame<'_>, line: Rect) {
    let label = format!("{name:<4} {:>5}/s", bytes_per_second(of(&model.now)));
    frame.render_widget(Line::raw(label), line);
    let taken = (LABEL_WIDTH + 1).min(line.width);
    let rest = Rect {
        x: line.x + taken,
        width: line.width - taken,
        ..line
    };
    let latest_first = model.history.iter().rev().map(of);
    let drawn = Sparkline::default()
        .data(latest_first.map(whole).collect::<Vec<_>>())
        .direction(RenderDirection::RightToLeft)
        .style(style(model, Tone::Aside));
    frame.render_widget(drawn, rest);
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest integer that there is"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

fn list(model: &mut Model, frame: &mut Frame<'_>, mut room: Room) {
    let layout = Layout::new(usize::from(room.0.width));
    let bold = style(model, Tone::Strong);
    let titles = layout.line("POOL/SERVER", bold, |column| {
        Span::styled(column.title(), bold)
    });
    frame.render_widget(titles, room.line());
    let count = model.rows().len();
    model.fit(count, usize::from(room.0.height));
    let rows = model.rows();
    for row in rows
        .iter()
        .skip(model.offset)
        .take(usize::from(room.0.height))
    {
        frame.render_widget(drawn(model, &layout, row), room.line());
    }
}

fn drawn<'r>(model: &Model, layout: &Layout, row: &Row<'r>) -> Line<'r> {
    match row {
        Row::Pool {
            name,
            pool,
            active,
            rates,
        } => {
            let name = format!("{}  {}", plain(name), plain(&pool.algorithm));
            let total = Figures {
                active: *active,
                rates: *rates,
                total: pool
                    .servers
                    .iter()
                    .map(|(_, it)| it.connections.total)
                    .sum(),
                failed: pool
                    .servers
                    .iter()
                    .map(|(_, it)| it.connections.failed)
                    .sum(),
            };
            layout.heading(&name, style(model, Tone::Strong), &total)
        }
        Row::Server {
            name,
            server,
            share,
            rates,
        } => server_line(model, layout, name, (*server, *share, *rates)),
        Row::Leaving(leaving) => leaving_line(model, layout, leaving),
        Row::Note(text) => Line::styled(text.clone(), style(model, Tone::Warning)),
        Row::Drain(going) => {
            Line::styled(format!("    {}", drain(going)), style(model, Tone::Warning))
        }
    }
}

fn server_line<'l>(
    model: &Model,
    layout: &Layout,
    name: &str,
    (server, share, rates): (&Server, f64, Rates),
) -> Line<'l> {
    let figures = Figures {
        active: server.connections.active,
        rates,
        total: server.connections.total,
        failed: server.connections.failed,
    };
    layout.line(
        &format!("  {}", plain(name)),
        Style::new(),
        |column| match column {
            Column::State => {
                let tone = Tone::of_state(&server.state);
                Span::styled(plain(&server.state), style(model, tone))
            }
            Column::Share => Span::raw(bar(share)),
            Column::Weight => Span::raw(server.weight.to_string()),
            _ => Span::raw(figures.text(column)),
        },
    )
}

fn leaving_line<'l>(model: &Model, layout: &Layout, leaving: &Leaving) -> Line<'l> {
    let name = plain(&format!("{}/{}", leaving.pool, leaving.server));
    let figures = Figures {
        active: leaving.connections.active,
        rates: Rates::default(),
        total: leaving.connections.total,
        failed: leaving.connections.failed,
    };
    layout.line(&name, Style::new(), |column| match column {
        Column::State => Span::styled("leaving", style(model, Tone::of_state("leaving"))),
        Column::Share | Column::Weight => Span::raw(""),
        _ => Span::raw(figures.text(column)),
    })
}

fn footer(model: &Model) -> Line<'static> {
    let text = format!("q leave  s sort: {}  p pause  ? help", model.sort.name());
    Line::raw(text).alignment(Alignment::Left)
}
