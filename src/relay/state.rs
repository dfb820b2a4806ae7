//! A flow as plain values, to be taken up by another process: what is told, and what is not.
//!
//! Readiness is not told. Nobody touches the sockets in between, and adding one to the next process's
//! epoll reports all that is so at that moment, edge-triggered or not (`ep_insert` polls it): queued
//! bytes, room, an end (EPOLLRDHUP), an urgent mark, an error that nobody was told. So a flow begins
//! anew as one whose kernel has said that there is nothing. Two things do not come again:
//!
//! - **An error that a call has taken** (SO_ERROR is told once). It is in the state, as a source that
//!   is doomed or failed or a target that has failed. A *doomed* source has to be read once more to end,
//!   and where a unix socket's peer only stopped reading, no event will ask for it: it begins as ready.
//! - **Room below the mark at which the kernel reports it** (a third of a send buffer). Adding the socket
//!   marks it as wanting room (SOCK_NOSPACE), so the report comes when more is free; nothing is lost but
//!   the chance of a short send before.
//!
//! Fields may be added, each with a default that stands for how it was before. One that is the default
//! is not written: most flows hold nothing, and a process has two for each connection.

use std::os::fd::{BorrowedFd, OwnedFd};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::flow::{Flow, Held, Source};
use super::mode::Mode;
use super::pipe_cache::PipeCache;
use super::stash::Stash;

/// One direction of one connection, between two turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowState {
    /// Read and not delivered.
    #[serde(skip_serializing_if = "is_default")]
    pub held: HeldState,
    /// Bytes of the source delivered to the target's socket.
    #[serde(skip_serializing_if = "is_default")]
    pub delivered: u64,
    /// How it moves bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// What is known of the source.
    #[serde(skip_serializing_if = "is_default")]
    pub source: Source,
    /// Nothing more can be delivered.
    #[serde(skip_serializing_if = "is_default")]
    pub target_failed: bool,
    /// After the bytes that are queued comes the end.
    #[serde(skip_serializing_if = "is_default")]
    pub source_ending: bool,
    /// Urgent data may be queued.
    #[serde(skip_serializing_if = "is_default")]
    pub urgent: bool,
}

/// What a flow has read and not delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// Nothing.
    #[default]
    Nothing,
    /// What is left of what goes ahead of the source's bytes; in base64, not empty.
    #[serde(with = "as_base64")]
    Header(Vec<u8>),
    /// What is left of one read; in base64, not empty.
    #[serde(with = "as_base64")]
    Stash(Vec<u8>),
    /// So many bytes in a pipe, whose ends go along; not 0.
    Pipe(u32),
}

/// Why a flow cannot be taken up: its bytes are not all there, or not where it says.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ThawError {
    /// It holds something of no bytes.
    #[error("it says that it holds bytes, and there are none")]
    Empty,
    /// It holds bytes in a pipe that did not come.
    #[error("its pipe is missing")]
    PipeMissing,
    /// A pipe came to a flow that holds none.
    #[error("it has a pipe that it says nothing of")]
    PipeUnknown,
    /// What came is no pipe.
    #[error("its pipe is none: {0}")]
    NoPipe(String),
    /// Bytes are lost, or somebody else's.
    #[error("its pipe holds {held} bytes, and it says {said}")]
    PipeCount {
        /// As the flow has it.
        said: u32,
        /// As the kernel has it.
        held: usize,
    },
}

impl Flow {
    /// The flow as it stands, and the ends of the pipe that it holds: to be read, to be written. It is
    /// not changed, and may go on: then what was told is out of date.
    pub fn freeze(&self) -> (FlowState, Option<[BorrowedFd<'_>; 2]>) {
        let (held, pipe) = match &self.held {
            Held::Nothing => (HeldState::Nothing, None),
            Held::Header(stash) => (HeldState::Header(stash.rest().to_vec()), None),
            Held::Stash(stash) => (HeldState::Stash(stash.rest().to_vec()), None),
            Held::Pipe(pipe, bytes) => {
                let ends = [pipe.read_end(), pipe.write_end()];
                (HeldState::Pipe(*bytes), Some(ends))
            }
        };
        let state = FlowState {
            held,
            delivered: self.delivered,
            mode: self.mode,
            source: self.source,
            target_failed: self.target_failed,
            source_ending: self.source_ending,
            urgent: self.urgent,
        };
        (state, pipe)
    }

    /// A flow that goes on where another one stood, which must not. Its pipe counts as lent, also beyond
    /// the quota. Its sockets are to be added to epoll *after* this.
    ///
    /// # Errors
    /// Where what it holds is not there; the descriptors are closed.
    pub fn thaw(
        state: FlowState,
        pipe: Option<[OwnedFd; 2]>,
        pipes: &mut PipeCache,
    ) -> Result<Self, ThawError> {
        let held = match (state.held, pipe) {
            (HeldState::Pipe(bytes), Some(ends)) => taken_up(bytes, ends, pipes)?,
            (HeldState::Pipe(_), None) => return Err(ThawError::PipeMissing),
            (_, Some(_)) => return Err(ThawError::PipeUnknown),
            (HeldState::Nothing, None) => Held::Nothing,
            (HeldState::Header(bytes), None) => Held::Header(stash(bytes)?),
            (HeldState::Stash(bytes), None) => Held::Stash(stash(bytes)?),
        };
        Ok(Self {
            held,
            delivered: state.delivered,
            mode: state.mode,
            source: state.source,
            target_failed: state.target_failed,
            source_ready: state.source == Source::Doomed,
            target_ready: false,
            source_ending: state.source_ending,
            urgent: state.urgent,
        })
    }
}

fn stash(bytes: Vec<u8>) -> Result<Stash, ThawError> {
    match bytes.is_empty() {
        true => Err(ThawError::Empty),
        false => Ok(Stash::new(bytes)),
    }
}

fn taken_up(said: u32, ends: [OwnedFd; 2], pipes: &mut PipeCache) -> Result<Held, ThawError> {
    if said == 0 {
        return Err(ThawError::Empty);
    }
    let no_pipe = |error: std::io::Error| ThawError::NoPipe(error.to_string());
    let pipe = pipes.adopt(ends).map_err(no_pipe)?;
    match pipe.held() {
        Ok(held) if held == said as usize => Ok(Held::Pipe(pipe, said)),
        outcome => {
            pipes.discard(pipe);
            Err(outcome.map_or_else(no_pipe, |held| ThawError::PipeCount { said, held }))
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes as JSON has them.
mod as_base64 {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
