//! Watching until no connection is left, as `drain --wait` and `leave --wait` do: a look each second, a
//! line where there is news, and an end in vain at the deadline.
//!
//! Knows not whose connections they are; whoever waits says how to look.

use std::time::Duration;

use anyhow::{anyhow, bail};
use crossbeam_channel::after;

use super::output::{Paper, print};
use super::table::cut;
use crate::clock::Now;
use crate::units::{counted, show_duration};

/// Between two looks: often enough for a person, rarely enough for the process. A line is printed
/// at most as often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Back to the first column, and all of the line gone.
const AGAIN: &str = "\r\u{1b}[K";

/// How one look ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// So many are left, and how it goes; none where some may still come.
    Left(u64, String),
    None,
    /// Somebody else has ended what is waited for; how it is now, to follow the name.
    Undone(String),
}

/// One wait.
pub(super) struct Watch<'w> {
    /// Whose connections they are.
    name: &'w str,
    paper: Paper,
    /// When it ends in vain, and how long that is.
    deadline: Option<(Now, Duration)>,
    /// What to say then, to follow the count.
    in_vain: &'w str,
    /// The last progress, so that only news makes a line.
    said: String,
}

impl<'w> Watch<'w> {
    pub(super) fn new(name: &'w str, deadline: Option<(Now, Duration)>, in_vain: &'w str) -> Self {
        Self {
            name,
            paper: Paper::standard(),
            deadline,
            in_vain,
            said: String::new(),
        }
    }

    /// # Errors
    /// Those of `look`, where somebody else has ended it, and after the deadline.
    pub(super) fn until_none_is_left(
        mut self,
        look: impl FnMut() -> anyhow::Result<Look>,
    ) -> anyhow::Result<()> {
        let outcome = self.wait(look);
        self.end_line()?;
        outcome
    }

    fn wait(&mut self, mut look: impl FnMut() -> anyhow::Result<Look>) -> anyhow::Result<()> {
        loop {
            match look()? {
                Look::None => return self.say("no connection is left"),
                Look::Undone(how) => bail!("{} {how}", self.name),
                Look::Left(count, text) => {
                    self.say(&text)?;
                    self.end_in_vain(count)?;
                }
            }
            pause(LOOK_INTERVAL);
        }
    }

    fn end_in_vain(&self, left: u64) -> anyhow::Result<()> {
        match self.deadline {
            Some((deadline, max)) if left > 0 && Now::read() >= deadline => Err(anyhow!(
                "{}: {} left after {}, and {}",
                self.name,
                counted(left, "connection"),
                show_duration(max),
                self.in_vain
            )),
            _ => Ok(()),
        }
    }

    /// Draws the line again on a terminal, else writes one where there is news.
    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        if text == self.said {
            return Ok(());
        }
        text.clone_into(&mut self.said);
        let line = format!("{}: {text}", self.name);
        if !self.paper.can_redraw {
            return print(&format!("{line}\n"));
        }
        // A line that wraps could not be drawn again.
        let room = self
            .paper
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(1));
        print(&format!("{AGAIN}{}", cut(&line, room)))
    }

    /// Whatever comes next begins on a line of its own.
    fn end_line(&self) -> anyhow::Result<()> {
        let is_open = self.paper.can_redraw && !self.said.is_empty();
        if is_open { print("\n") } else { Ok(()) }
    }
}

/// Nothing ever comes on this channel but the time.
fn pause(time: Duration) {
    after(time).recv().map(drop).unwrap_or(());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(looks: Vec<Look>, deadline: Option<Duration>) -> Result<(), String> {
        let mut looks = looks.into_iter();
        let deadline = deadline.map(|max| (Now::read() + max, max));
        let watch = Watch::new("it", deadline, "so it is");
        let outcome = watch.until_none_is_left(|| Ok(looks.next().unwrap()));
        outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn a_wait_ends_well_in_vain_or_by_somebody_else() {
        let some = || Look::Left(2, "2 left".to_owned());
        assert_eq!(wait(vec![Look::None], Some(Duration::ZERO)), Ok(()));
        assert_eq!(
            wait(vec![some()], Some(Duration::ZERO)).unwrap_err(),
            "it: 2 connections left after 0s, and so it is"
        );
        // It is not in vain where nobody is left.
        let nobody = Look::Left(0, "none".to_owned());
        assert_eq!(wait(vec![nobody, Look::None], Some(Duration::ZERO)), Ok(()));
        let undone = Look::Undone("is back".to_owned());
        assert_eq!(wait(vec![undone], None).unwrap_err(), "it is back");
    }
}
