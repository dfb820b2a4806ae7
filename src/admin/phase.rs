//! Where a visit stands, and who notices: the socket when something comes after a pause, the body of
//! an answer when the peer has been given all of it.
//!
//! ```text
//!  Head -> Answering -> Sending ---> Idle -> Head ...
//!                   \-> Streaming -/   \-> (its limit) closed
//!                          \-> Over: closed at once
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::bounds::Bounds;

/// Where a visit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head has begun, or is awaited for the first time.
    Head,
    /// A request is being answered; that has limits of its own.
    Answering,
    /// The peer takes the answer.
    Sending,
    /// The peer takes a stream, which looks after itself.
    Streaming,
    /// Nothing is asked for.
    Idle,
    /// The peer has failed us.
    Over,
}

impl Phase {
    /// How long it may last; a visit whose time is up is closed.
    pub(super) fn limit(self, bounds: &Bounds) -> Option<Duration> {
        match self {
            Self::Head => Some(bounds.head),
            Self::Answering | Self::Streaming => None,
            Self::Sending => Some(bounds.sending),
            Self::Idle => Some(bounds.idle),
            Self::Over => Some(Duration::ZERO),
        }
    }
}

/// The phase of one visit, changed from where it is noticed.
pub(super) type Phases = Arc<watch::Sender<Phase>>;

/// Goes on to the phase that `next` says; one that stays does not begin anew.
fn shift(phases: &Phases, next: impl FnOnce(Phase) -> Phase) {
    phases.send_if_modified(|phase| {
        let before = std::mem::replace(phase, next(*phase));
        before != *phase
    });
}

/// An answer's body, which tells when the peer has been given all of it.
pub(super) struct Tracked {
    pub(super) body: Body,
    pub(super) phases: Phases,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // What the kernel has not sent yet is on its way as long as the visit may idle.
        shift(&self.phases, |phase| match phase {
            Phase::Over => Phase::Over,
            _ => Phase::Idle,
        });
    }
}

/// A stream that tells when something comes after a pause.
pub(super) struct Observed<S> {
    pub(super) stream: S,
    pub(super) phases: Phases,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            shift(&self.phases, |phase| match phase {
                Phase::Idle => Phase::Head,
                other => other,
            });
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
