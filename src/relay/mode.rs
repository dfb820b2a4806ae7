//! Copy or splice: what a flow does next, judged by what it has just seen.
//!
//! Copying is two calls a chunk and wins for small ones; splicing wins where large reads are there at
//! once (break-even is about 8 to 16 KiB a chunk). So a flow copies until it proves to be bulk, and
//! goes back when it stops being so. Request and answer traffic never touches a pipe.

use serde::{Deserialize, Serialize};

/// Full reads in a row that prove a flow to be bulk: 128 KiB of evidence.
const FULL_READS: u8 = 2;
/// Small fills in a row that prove that it no longer is.
const SMALL_FILLS: u8 = 3;
/// What a fill must bring to be worth a pipe, in bytes.
const SMALL_FILL: usize = 8 * 1024;

/// How a flow moves bytes. The names are those of a flow that is handed over (`state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Through the worker's buffer; counts full reads in a row.
    Copy {
        /// Reads in a row that filled the buffer.
        #[serde(default)]
        full: u8,
    },
    /// Through a pipe; counts small fills in a row.
    Splice {
        /// Fills in a row that were hardly worth it.
        #[serde(default)]
        small: u8,
    },
    /// Copying for good: one of the sockets cannot splice, or urgent data would stall it (trap 3).
    Pinned,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Copy { full: 0 }
    }
}

impl Mode {
    /// After a read through the buffer.
    pub fn after_read(self, filled_buffer: bool) -> Self {
        match self {
            Self::Copy { full } if filled_buffer && full.saturating_add(1) >= FULL_READS => {
                Self::Splice { small: 0 }
            }
            Self::Copy { full } if filled_buffer => Self::Copy { full: full + 1 },
            Self::Copy { .. } => Self::Copy { full: 0 },
            Self::Splice { .. } | Self::Pinned => self,
        }
    }

    /// After a splice into an empty pipe.
    pub fn after_fill(self, bytes: usize) -> Self {
        match self {
            Self::Splice { .. } if bytes >= SMALL_FILL => Self::Splice { small: 0 },
            Self::Splice { small } if small.saturating_add(1) < SMALL_FILLS => {
                Self::Splice { small: small + 1 }
            }
            Self::Splice { .. } => Self::Copy { full: 0 },
            Self::Copy { .. } | Self::Pinned => self,
        }
    }

    /// After no pipe was to be had: evidence is gathered anew, which spaces out the attempts.
    pub fn after_refusal(self) -> Self {
        match self {
            Self::Splice { .. } => Self::Copy { full: 0 },
            Self::Copy { .. } | Self::Pinned => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_full_reads_make_a_flow_bulk() {
        let mode = Mode::default().after_read(true);
        assert_eq!(mode, Mode::Copy { full: 1 });
        assert_eq!(mode.after_read(true), Mode::Splice { small: 0 });
        assert_eq!(mode.after_read(false), Mode::default());
    }

    #[test]
    fn three_small_fills_in_a_row_end_it() {
        let once = Mode::Splice { small: 0 }.after_fill(SMALL_FILL - 1);
        let twice = once.after_fill(1);
        assert_eq!(twice, Mode::Splice { small: 2 });
        assert_eq!(twice.after_fill(SMALL_FILL), Mode::Splice { small: 0 });
        assert_eq!(twice.after_fill(1), Mode::default());
    }

    #[test]
    fn pinned_stays() {
        for mode in [Mode::Pinned.after_read(true), Mode::Pinned.after_fill(1)] {
            assert_eq!(mode.after_read(true).after_refusal(), Mode::Pinned);
        }
    }
}
