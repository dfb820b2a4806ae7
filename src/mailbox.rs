//! Messages between threads: a crossbeam channel, and a mio `Waker` at the receiving loop.
//!
//! The bell is rung once for however many messages: a sender that finds it rung already saves the
//! system call. Senders never block.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Registry, Token, Waker};

/// Wakes the receiving loop, once until it looks.
#[derive(Debug)]
struct Bell {
    waker: Waker,
    is_rung: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            // An eventfd write fails only without memory; the next message tries again.
            self.is_rung.store(false, Ordering::Release);
            log::error!("cannot wake a thread: {error}");
        }
    }
}

/// Where messages are put; cheap to clone.
#[derive(Debug)]
pub struct Outbox<T> {
    channel: Sender<T>,
    bell: Arc<Bell>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<T> Outbox<T> {
    /// Puts a message and wakes the receiver.
    ///
    /// # Errors
    /// Gives the message back where the receiver is gone.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.channel
            .send(message)
            .map_err(crossbeam_channel::SendError::into_inner)?;
        self.bell.ring();
        Ok(())
    }
}

/// Where messages come out, on the thread whose loop has the registry.
#[derive(Debug)]
pub struct Mailbox<T> {
    channel: Receiver<T>,
    bell: Arc<Bell>,
}

impl<T> Mailbox<T> {
    /// A mailbox whose bell comes as an event with `token`.
    ///
    /// # Errors
    /// EMFILE, ENOMEM: an eventfd is made and registered.
    pub fn new(registry: &Registry, token: Token) -> io::Result<(Outbox<T>, Self)> {
        let (sender, receiver) = unbounded();
        let waker = Waker::new(registry, token)?;
        let bell = Arc::new(Bell {
            waker,
            is_rung: AtomicBool::new(false),
        });
        Ok((
            Outbox {
                channel: sender,
                bell: Arc::clone(&bell),
            },
            Self {
                channel: receiver,
                bell,
            },
        ))
    }

    /// At most `budget` messages. Call it on the bell's event; what the budget leaves rings again.
    pub fn take(&self, budget: usize) -> impl Iterator<Item = T> + use<'_, T> {
        // Silenced first, and by a read-modify-write: a plain store could still be on its way when
        // the channel is read, and a sender in between would find the bell rung and not wake us.
        self.bell.is_rung.swap(false, Ordering::AcqRel);
        let mut left = budget;
        std::iter::from_fn(move || {
            if left == 0 {
                self.bell.ring();
                return None;
            }
            left -= 1;
            self.channel.try_recv().ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    #[test]
    fn messages_wake_once_and_a_budget_leaves_the_rest_for_the_next_turn() {
        let mut poll = Poll::new().unwrap();
        let (outbox, mailbox) = Mailbox::new(poll.registry(), Token(7)).unwrap();
        for number in 0..5 {
            outbox.send(number).unwrap();
        }
        let mut events = Events::with_capacity(8);
        let mut got = Vec::new();
        while got.len() < 5 {
            poll.poll(&mut events, None).unwrap();
            assert!(events.iter().all(|event| event.token() == Token(7)));
            got.extend(mailbox.take(2));
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_message_to_nobody_comes_back() {
        let poll = Poll::new().unwrap();
        let (outbox, mailbox) = Mailbox::new(poll.registry(), Token(0)).unwrap();
        drop(mailbox);
        assert_eq!(outbox.send("hello"), Err("hello"));
    }
}
