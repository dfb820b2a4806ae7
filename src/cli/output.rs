//! Standard output: how wide it is, whether it shows colours, and what happens when its reader goes.
//!
//! Knows no command.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use anyhow::anyhow;
use ratatui::crossterm::terminal;
use serde_json::Value;

/// What a text means, where colours can say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    /// Someone should look, or wait.
    Warning,
    /// Somebody wanted it so.
    Aside,
    /// A heading.
    Strong,
}

impl Tone {
    /// Of a server's state.
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "up" => Self::Good,
            "down" => Self::Bad,
            "draining" | "leaving" => Self::Warning,
            "maintenance" => Self::Aside,
            _ => Self::Plain,
        }
    }

    /// As SGR parameters.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Warning => Some("33"),
            Self::Aside => Some("36"),
            Self::Strong => Some("1"),
        }
    }
}

/// What standard output can show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paper {
    /// Columns of the terminal; `None` where nothing needs to be cut.
    pub(super) width: Option<usize>,
    pub(super) has_colours: bool,
    /// True exactly when a line can be drawn again.
    pub(super) can_redraw: bool,
}

impl Paper {
    /// That of standard output.
    pub(super) fn standard() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: is_terminal.then(width).flatten(),
            has_colours: is_terminal && wants_colours(),
            can_redraw: is_terminal && !is_dumb,
        }
    }

    /// The text in its colour.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        match tone.code().filter(|_| self.has_colours) {
            Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }
}

/// By the variables that all programs heed: no-color.org, and a terminal that knows no sequences.
pub(super) fn wants_colours() -> bool {
    wants_colours_by(
        env::var_os("NO_COLOR").as_deref(),
        env::var_os("TERM").as_deref(),
    )
}

fn wants_colours_by(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// `None` also for a terminal that does not know, which then says 0.
fn width() -> Option<usize> {
    let (columns, _) = terminal::size().ok()?;
    (columns > 0).then_some(usize::from(columns))
}

/// Writes all of it at once. A reader that has gone, as `head` does, has what it wanted.
///
/// # Errors
/// Where it cannot be written, as on a full disk.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// What the API answered, indented.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn print_json(answer: &Value) -> anyhow::Result<()> {
    // `#` is serde_json's indentation; a value can always be shown.
    print(&format!("{answer:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_refused_by_either_variable() {
        let wants = |no_color: Option<&str>, term: Option<&str>| {
            wants_colours_by(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wants(None, None) && wants(Some(""), Some("xterm")));
        assert!(!wants(Some("1"), Some("xterm")));
        assert!(!wants(None, Some("dumb")));
    }

    #[test]
    fn plain_paper_has_no_sequences() {
        assert_eq!(Paper::default().paint(Tone::Bad, "down"), "down");
        let colourful = Paper {
            has_colours: true,
            ..Paper::default()
        };
        assert_eq!(
            colourful.paint(Tone::Bad, "down"),
            "\u{1b}[31mdown\u{1b}[0m"
        );
        assert_eq!(colourful.paint(Tone::Plain, "x"), "x");
    }
}
