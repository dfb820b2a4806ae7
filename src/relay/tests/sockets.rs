//! Models of a flow's two sockets: queues, the urgent mark, ends and resets as Linux 6.x has them,
//! bounded room, and the edges that epoll would report. What is moved is known by its position in
//! the stream; contents are the business of `model`.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// The source's socket: bytes from `head` to `tail` are queued.
#[derive(Debug, Default)]
pub(super) struct SourceSocket {
    /// Lengths of what arrived, each a fragment that takes a pipe's slot.
    pub(super) fragments: VecDeque<usize>,
    pub(super) head: u64,
    tail: u64,
    /// Position of the urgent byte, until a read passes it.
    pub(super) mark: Option<u64>,
    /// SO_OOBINLINE: the urgent byte is read as any other.
    pub(super) urgent_inline: bool,
    has_fin: bool,
    is_reset: bool,
    /// ECONNRESET or EPIPE that nobody has been told yet.
    error: bool,
    /// A change that epoll has not reported yet.
    edge: bool,
}

/// What epoll says of the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    pub(super) readable: bool,
    pub(super) urgent: bool,
    pub(super) ending: bool,
    pub(super) error: bool,
}

impl SourceSocket {
    pub(super) fn new(urgent_inline: bool) -> Self {
        Self {
            urgent_inline,
            ..Self::default()
        }
    }

    pub(super) fn queued(&self) -> u64 {
        self.tail - self.head
    }

    pub(super) fn is_closed(&self) -> bool {
        self.has_fin || self.is_reset
    }

    pub(super) fn was_reset(&self) -> bool {
        self.is_reset
    }

    pub(super) fn arrive(&mut self, bytes: usize) {
        self.fragments.push_back(bytes);
        self.tail += bytes as u64;
        self.edge = true;
    }

    /// One urgent byte. A mark that is still there becomes an ordinary byte, unless it is the next to
    /// be read: then the kernel drops it (`tcp_check_urg`). Answers what was dropped.
    pub(super) fn arrive_urgent(&mut self) -> Option<u64> {
        let dropped = self
            .mark
            .filter(|mark| *mark == self.head && !self.urgent_inline);
        if dropped.is_some() {
            self.consume(1);
        }
        self.mark = Some(self.tail);
        self.arrive(1);
        dropped
    }

    pub(super) fn finish(&mut self) {
        self.has_fin = true;
        self.edge = true;
    }

    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.error = true;
        self.edge = true;
    }

    /// A send on this socket, by the opposite flow, is told the error; true when there was one.
    pub(super) fn take_error(&mut self) -> bool {
        std::mem::take(&mut self.error)
    }

    pub(super) fn has_edge(&self) -> bool {
        self.edge
    }

    /// It is added to another epoll, which reports what is so at that moment.
    pub(super) fn register(&mut self) {
        self.edge = self.queued() > 0 || self.mark.is_some() || self.is_closed() || self.error;
    }

    /// What epoll reports, once for all changes since it was last asked.
    pub(super) fn report(&mut self) -> Mask {
        self.edge = false;
        Mask {
            readable: self.head < self.tail,
            urgent: self.mark.is_some(),
            ending: self.is_closed(),
            error: self.error,
        }
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.head += bytes as u64;
        let mut left = bytes;
        while left > 0 {
            let first = self
                .fragments
                .front_mut()
                .expect("queued bytes lie in fragments");
            let part = left.min(*first);
            *first -= part;
            left -= part;
            if *first == 0 {
                self.fragments.pop_front();
            }
        }
    }

    /// Bytes up to the mark, behind which no call goes that has bytes already.
    pub(super) fn before_mark(&self) -> usize {
        let end = self
            .mark
            .filter(|mark| *mark > self.head)
            .unwrap_or(self.tail);
        usize::try_from(end - self.head).unwrap()
    }

    /// What a call says that found no bytes.
    pub(super) fn without_bytes(&mut self) -> io::Result<usize> {
        if self.has_fin {
            // SOCK_DONE is looked at before the error, which stays for the next send.
            Ok(0)
        } else if self.take_error() {
            Err(ErrorKind::ConnectionReset.into())
        } else if self.is_reset {
            Ok(0)
        } else {
            Err(ErrorKind::WouldBlock.into())
        }
    }
}

/// The target's socket.
#[derive(Debug)]
pub(super) struct TargetSocket {
    capacity: usize,
    room: usize,
    /// SOCK_NOSPACE: a sender found too little room, so the next room is an edge.
    is_wanted: bool,
    is_reset: bool,
    /// A sender was told of the reset.
    pub(super) has_told: bool,
    edge: bool,
}

impl TargetSocket {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            room: capacity,
            is_wanted: false,
            is_reset: false,
            has_told: false,
            edge: true,
        }
    }

    /// Its peer reads.
    pub(super) fn make_room(&mut self, bytes: usize) {
        self.room = (self.room + bytes).min(self.capacity);
        // sk_stream_is_writeable: a third must be free.
        if self.is_wanted && self.room >= self.capacity / 3 {
            self.is_wanted = false;
            self.edge = true;
        }
    }

    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.edge = true;
    }

    pub(super) fn was_reset(&self) -> bool {
        self.is_reset
    }

    /// It is added to another epoll: where there is too little room, that is wanted from now on.
    pub(super) fn register(&mut self) {
        let has_room = self.room >= self.capacity / 3;
        self.is_wanted |= !has_room;
        self.edge = has_room || self.is_reset;
    }

    /// Whether epoll has an edge to report, once.
    pub(super) fn take_edge(&mut self) -> bool {
        std::mem::take(&mut self.edge)
    }

    pub(super) fn has_edge(&self) -> bool {
        self.edge
    }

    pub(super) fn accept(&mut self, bytes: usize) -> io::Result<usize> {
        assert!(!self.has_told, "a call on a target that has failed");
        if self.is_reset {
            self.has_told = true;
            return Err(ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.min(self.room);
        self.is_wanted |= taken < bytes;
        self.room -= taken;
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }
}
