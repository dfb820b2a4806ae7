//! Connections on their way out: as many to a message as it takes.

use std::os::fd::BorrowedFd;

use crate::handover::{self, ConnectionState, Connections, FrameError};

/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
const DESCRIPTORS_PER_FRAME: usize = handover::frame::DESCRIPTORS_MAX;
/// Bytes of flows in one message, beside those of one more connection: far below what it may have.
const HELD_BYTES_PER_FRAME: usize = 256 * 1024;
/// Of one connection: both sockets and two pipes.
const DESCRIPTORS_MAX: usize = 6;

/// Connections on their way out, several to a frame.
pub(super) struct Frames<'o> {
    outlet: &'o mut handover::Sender,
    message: Connections,
    /// Bytes that flows hold in memory, which go along in base64.
    held_bytes: usize,
    descriptors: Vec<BorrowedFd<'o>>,
    sent: usize,
}

impl<'o> Frames<'o> {
    pub(super) fn new(outlet: &'o mut handover::Sender) -> Self {
        Self {
            outlet,
            message: Connections::default(),
            held_bytes: 0,
            descriptors: Vec::new(),
            sent: 0,
        }
    }

    pub(super) fn put(
        &mut self,
        state: ConnectionState,
        descriptors: impl IntoIterator<Item = Option<BorrowedFd<'o>>>,
    ) -> Result<(), FrameError> {
        debug_assert!(state.descriptors() <= DESCRIPTORS_MAX);
        let is_full = self.descriptors.len() + DESCRIPTORS_MAX > DESCRIPTORS_PER_FRAME;
        if is_full || self.held_bytes > HELD_BYTES_PER_FRAME {
            self.flush()?;
        }
        self.held_bytes += state.held_bytes();
        self.message.connections.push(state);
        self.descriptors.extend(descriptors.into_iter().flatten());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FrameError> {
        self.outlet.send(&self.message, &self.descriptors)?;
        self.sent += self.message.connections.len();
        self.message.connections.clear();
        self.held_bytes = 0;
        self.descriptors.clear();
        Ok(())
    }

    /// How many went out.
    pub(super) fn finish(mut self) -> Result<usize, FrameError> {
        if !self.message.connections.is_empty() {
            self.flush()?;
        }
        Ok(self.sent)
    }
}
