//! From answers to a state: rise and fall. Pure: no clock, no socket, no log.
//!
//! The first answer decides alone, so that a start is quick. After it, only `rise` good answers in
//! a row make a server up and only `fall` bad ones in a row make it down. An unknown answer never
//! comes here: it neither counts nor interrupts a row.

use std::num::NonZeroU32;

/// A server's state by its answers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `None` before the first answer.
    is_up: Option<bool>,
    /// The latest answers in a row that speak against `is_up`.
    against: u32,
}

/// The state has become known, or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) is_up: bool,
    /// The row of answers that brought it about.
    pub(super) answers: u32,
    /// There was no state before.
    pub(super) is_first: bool,
}

/// How many answers in a row change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    pub(super) rise: NonZeroU32,
    pub(super) fall: NonZeroU32,
}

impl Verdict {
    /// As somebody else has found, if anybody has.
    pub(super) fn known(is_up: Option<bool>) -> Self {
        Self { is_up, against: 0 }
    }

    /// The state; `None` before the first answer.
    pub(super) fn is_up(self) -> Option<bool> {
        self.is_up
    }

    /// The next answers are to another question: those before them are in no row with them. The
    /// state stays, or one answer to a new question could take a whole pool down.
    pub(super) fn begin_anew(&mut self) {
        self.against = 0;
    }

    /// Counts one answer.
    pub(super) fn count(&mut self, is_good: bool, thresholds: Thresholds) -> Option<Change> {
        let is_first = self.is_up.is_none();
        if self.is_up == Some(is_good) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let answers = self.against;
        let needed = if is_good {
            thresholds.rise
        } else {
            thresholds.fall
        };
        if !is_first && answers < needed.get() {
            return None;
        }
        *self = Self {
            is_up: Some(is_good),
            against: 0,
        };
        Some(Change {
            is_up: is_good,
            answers,
            is_first,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(rise: u32, fall: u32) -> Thresholds {
        Thresholds {
            rise: NonZeroU32::new(rise).unwrap(),
            fall: NonZeroU32::new(fall).unwrap(),
        }
    }

    /// `+` good, `-` bad; the state after each: `u` up, `d` down.
    fn states(answers: &str, thresholds: Thresholds) -> String {
        let mut verdict = Verdict::default();
        let state = |answer| {
            verdict.count(answer == '+', thresholds);
            if verdict.is_up.unwrap() { 'u' } else { 'd' }
        };
        answers.chars().map(state).collect()
    }

    #[test]
    fn rows_change_the_state() {
        for (rise, fall, answers, expected) in [
            (2, 3, "+", "u"),
            (2, 3, "-", "d"),
            (2, 3, "+--+---", "uuuuuud"),
            (2, 3, "-+-+-++", "ddddddu"),
            (2, 3, "---", "ddd"),
            (1, 1, "+-+-", "udud"),
            (3, 1, "+-++-+++", "uddddddu"),
        ] {
            assert_eq!(
                states(answers, thresholds(rise, fall)),
                expected,
                "{answers}"
            );
        }
    }

    #[test]
    fn a_change_says_what_brought_it_about() {
        let mut verdict = Verdict::default();
        let mut count = |is_good| verdict.count(is_good, thresholds(2, 3));
        let change = |is_up, answers, is_first| {
            Some(Change {
                is_up,
                answers,
                is_first,
            })
        };
        assert_eq!(count(true), change(true, 1, true));
        assert_eq!([count(false), count(false)], [None, None]);
        assert_eq!(count(false), change(false, 3, false));
        assert_eq!(count(true), None);
        assert_eq!(count(true), change(true, 2, false));
    }

    #[test]
    fn another_question_keeps_the_state_and_begins_a_row_of_its_own() {
        let mut verdict;
        let thresholds = thresholds(2, 2);
        for is_up in [true, false] {
            verdict = Verdict {
                is_up: Some(is_up),
                against: 1,
            };
            verdict.begin_anew();
            assert_eq!(verdict.is_up(), Some(is_up));
            assert_eq!(verdict.count(!is_up, thresholds), None);
            assert!(verdict.count(!is_up, thresholds).is_some());
        }
        verdict = Verdict::default();
        verdict.begin_anew();
        assert!(verdict.count(false, thresholds).is_some(), "the first one");
    }

    #[test]
    fn a_state_that_was_known_before_takes_a_row_to_change() {
        let thresholds = thresholds(2, 3);
        let mut verdict = Verdict::known(Some(true));
        let counted = [false; 3].map(|is_good| verdict.count(is_good, thresholds).is_some());
        assert_eq!(counted, [false, false, true]);
        let mut verdict = Verdict::known(Some(false));
        let counted = [true; 2].map(|is_good| verdict.count(is_good, thresholds).is_some());
        assert_eq!(counted, [false, true]);
        assert_eq!(Verdict::known(None), Verdict::default());
    }

    proptest! {
        /// The model: the state is the last row that was long enough, else the first answer.
        #[test]
        fn the_state_is_that_of_the_last_long_row(
            answers in proptest::collection::vec(any::<bool>(), 1..200),
            rise in 1_u32..6,
            fall in 1_u32..6,
        ) {
            let mut verdict = Verdict::default();
            let mut expected = answers[0];
            let (mut row, mut last) = (0, answers[0]);
            for &answer in &answers {
                row = if answer == last { row + 1 } else { 1 };
                last = answer;
                if row >= if answer { rise } else { fall } {
                    expected = answer;
                }
                let before = verdict.is_up;
                let change = verdict.count(answer, thresholds(rise, fall));
                prop_assert_eq!(verdict.is_up, Some(expected));
                prop_assert_eq!(change.is_some(), before != verdict.is_up);
            }
        }
    }
}
