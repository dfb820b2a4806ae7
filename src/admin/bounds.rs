//! How much of the process the admin side may take, whoever asks: bytes, connections, time. Every
//! wait on a peer or on the process ends by one of these.

use std::time::Duration;

/// The limits of one admin thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Request line and headers; beyond it 431.
    pub(super) head_bytes: usize,
    /// What a change may say; beyond it 413.
    pub(super) body_bytes: usize,
    /// From a head's first byte, or from accept, to its last.
    pub(super) head: Duration,
    /// For a whole body.
    pub(super) body: Duration,
    /// For the process to answer.
    pub(super) request: Duration,
    /// The same for what reads files, or awaits health checks or another process.
    pub(super) slow_request: Duration,
    /// For the peer to take an answer, or one message of a stream.
    pub(super) sending: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// Of each transport; others wait in the kernel's backlog.
    pub(super) connections: usize,
    /// Event streams, over both transports; one more is answered 503.
    pub(super) streams: usize,
    /// Questions that the process has not answered yet.
    pub(super) asks: usize,
    /// For open answers and streams to end when the process does.
    pub(super) goodbye: Duration,
    /// The same where another process goes on: clients await it.
    pub(super) letting_go: Duration,
}

impl Bounds {
    /// Those of a running process. Only tests take others.
    pub(super) const USUAL: Self = Self {
        head_bytes: 16 << 10,
        body_bytes: 64 << 10,
        head: Duration::from_secs(5),
        body: Duration::from_secs(10),
        request: Duration::from_secs(30),
        slow_request: Duration::from_secs(300),
        sending: Duration::from_secs(30),
        idle: Duration::from_secs(60),
        connections: 64,
        streams: 16,
        asks: 64,
        goodbye: Duration::from_secs(1),
        letting_go: Duration::from_millis(250),
    };
}
