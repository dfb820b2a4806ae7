//! `evenkeel top`: pools and servers live on a terminal.
//!
//! `model` is what is known and chosen, `draw` what it looks like; both are pure. Here are the
//! terminal, the keys and the thread that asks, so that an evenkeel that does not answer never makes
//! the keys wait.

mod columns;
mod draw;
mod model;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::model::{Model, Wish};
use super::output::wants_colours;
use super::remote::Remote;
use super::view::Status;
use crate::clock::Now;

/// Between two questions: what makes a rate that a person can follow.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// What is drawn is never older: an answer that is late is told, too.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);

/// How long a signal, or the end of the terminal, may wait to be seen.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shows it until somebody leaves.
///
/// # Errors
/// Where there is no terminal, or it goes away.
pub(super) fn top(remote: &Remote) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("top needs a terminal, and this is none: evenkeel status shows the same once");
    }
    let ended = end_signals().map_err(|error| anyhow!("cannot wait for signals: {error}"))?;
    let answers = ask(remote.clone()).map_err(|error| anyhow!("cannot start a thread: {error}"))?;
    let model = Model::new(remote.socket(), wants_colours());
    let outcome = watch(model, &answers, &ended);
    outcome.map_err(|error| anyhow!("cannot use the terminal: {error}"))
}

/// Set by a signal that would otherwise leave the terminal as it is.
fn end_signals() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    Ok(ended)
}

type Answer = anyhow::Result<Status>;

/// Answers, and what ends the thread once it is dropped.
struct Answers {
    incoming: Receiver<Answer>,
    _going: Sender<()>,
}

/// Asks once in a while on a thread of its own. It is never joined: it may be in the middle of a
/// question, and the process ends anyway.
fn ask(remote: Remote) -> io::Result<Answers> {
    let (sender, incoming) = bounded(1);
    let (going, stop) = bounded(0);
    let body = move || {
        while sender.send(remote.status()).is_ok() {
            if stop.recv_timeout(ASK_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    thread::Builder::new().name("ask".to_owned()).spawn(body)?;
    Ok(Answers {
        incoming,
        _going: going,
    })
}

/// The terminal in raw mode; as it was once this is dropped. A panic restores it as well: that is
/// ratatui's hook, which runs before the process aborts.
struct Screen(Option<DefaultTerminal>);

impl Screen {
    fn new() -> io::Result<Self> {
        let terminal = ratatui::try_init();
        if terminal.is_err() {
            // Half of the way there is undone; what is wrong is told already.
            ratatui::try_restore().unwrap_or(());
        }
        terminal.map(|terminal| Self(Some(terminal)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let Some(mut terminal) = self.0.take() else {
            return;
        };
        // Where it is gone, there is nothing to restore.
        terminal.show_cursor().unwrap_or(());
        ratatui::try_restore().unwrap_or(());
        // ratatui would complain of a terminal that is gone to standard error, which may be the same
        // one, and a complaint that cannot be written is a panic.
        std::mem::forget(terminal);
    }
}

/// What is typed, and other events of the terminal, from a thread that is never joined: it waits, and
/// where the terminal has hung up it reads for ever (crossterm takes no end of file for one).
fn listen() -> io::Result<Receiver<Event>> {
    let (sender, keys) = bounded(1);
    let body = move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {};
    thread::Builder::new().name("keys".to_owned()).spawn(body)?;
    Ok(keys)
}

fn watch(mut model: Model, answers: &Answers, ended: &AtomicBool) -> io::Result<()> {
    let mut screen = Screen::new()?;
    let keys = listen()?;
    let mut drawn: Option<Now> = None;
    while !ended.load(Ordering::Relaxed) {
        // SIGHUP comes only to those whom the terminal controls.
        if !io::stdin().is_terminal() {
            return Err(gone());
        }
        let now = Now::read();
        if drawn.is_none_or(|drawn| now.since(drawn) >= DRAW_INTERVAL) {
            if let Some(terminal) = &mut screen.0 {
                terminal.draw(|frame| draw::draw(&mut model, now, frame))?;
            }
            drawn = Some(now);
        }
        select! {
            recv(answers.incoming) -> answer => {
                let answer = answer.map_err(|_| anyhow!("nobody asks any more")).flatten();
                model.take(answer.map_err(|error| error.to_string()), Now::read());
                drawn = None;
            }
            recv(keys) -> event => {
                let Ok(event) = event else {
                    return Err(gone());
                };
                if obey(&mut model, &event) == Wish::Leave {
                    break;
                }
                drawn = None;
            }
            default(PATIENCE) => {}
        }
    }
    Ok(())
}

/// The terminal has hung up.
fn gone() -> io::Error {
    io::Error::other("it is gone")
}

/// A new size needs nothing but to be drawn.
fn obey(model: &mut Model, event: &Event) -> Wish {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => press(model, *key),
        _ => Wish::Stay,
    }
}

fn press(model: &mut Model, key: KeyEvent) -> Wish {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if is_control => return Wish::Leave,
        KeyCode::Char('q') => return Wish::Leave,
        KeyCode::Esc | KeyCode::Char('?') if model.shows_help => model.shows_help = false,
        KeyCode::Esc => return Wish::Leave,
        KeyCode::Char('?') => model.shows_help = true,
        KeyCode::Char('p' | ' ') => model.is_paused = !model.is_paused,
        KeyCode::Char('s') => model.sort = model.sort.next(),
        KeyCode::Down | KeyCode::Char('j') => model.scroll_by(1),
        KeyCode::Up | KeyCode::Char('k') => model.scroll_by(-1),
        KeyCode::PageDown => model.scroll_pages(1),
        KeyCode::PageUp => model.scroll_pages(-1),
        KeyCode::Home => model.scroll_by(isize::MIN),
        KeyCode::End => model.scroll_by(isize::MAX),
        _ => {}
    }
    Wish::Stay
}
