//! The event loop that clients and servers share: many endpoints, timers, and a queue of those
//! that want another turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::time::Duration;

use evenkeel::clock::Now;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::endpoint::{Endpoint, Next, Outcome};

/// Tokens from here on are the owner's.
pub(crate) const FIRST_OWN_TOKEN: usize = 1 << 30;
/// An end that nothing comes to for so long hangs.
const HANG: Duration = Duration::from_secs(60);
/// The longest wait, so that the owner can look around.
const TICK: Duration = Duration::from_millis(20);

/// Endpoints of one thread. A stale event or timer is a turn for nothing and does no harm.
#[derive(Debug)]
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    members: Slab<Member>,
    timers: BinaryHeap<Reverse<(Now, usize)>>,
    queue: VecDeque<usize>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Member {
    number: u64,
    /// Whose it is: a server's index.
    group: usize,
    endpoint: Endpoint,
    queued: bool,
}

impl Crowd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            members: Slab::new(),
            timers: BinaryHeap::new(),
            queue: VecDeque::new(),
            scratch: vec![0; 1 << 18],
        })
    }

    /// For registering the owner's own sockets.
    pub(crate) fn poll(&self) -> &Poll {
        &self.poll
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Takes an endpoint in; it gets its first turn soon.
    pub(crate) fn add(
        &mut self,
        number: u64,
        group: usize,
        mut endpoint: Endpoint,
    ) -> io::Result<()> {
        let entry = self.members.vacant_entry();
        let key = entry.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(endpoint.socket(), Token(key), both)?;
        entry.insert(Member {
            number,
            group,
            endpoint,
            queued: false,
        });
        self.enqueue(key);
        Ok(())
    }

    /// Waits for events and gives every end that can do something its turn; `done` hears of those
    /// that are through. Returns the owner's tokens that have events.
    pub(crate) fn turn(&mut self, mut done: impl FnMut(u64, Outcome)) -> io::Result<Vec<usize>> {
        let wait = if self.queue.is_empty() {
            TICK
        } else {
            Duration::ZERO
        };
        self.poll
            .poll(&mut self.events, Some(wait))
            .or_else(|error| match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            })?;
        let tokens: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        let (own, members): (Vec<_>, Vec<_>) = tokens
            .into_iter()
            .partition(|token| *token >= FIRST_OWN_TOKEN);
        members.into_iter().for_each(|key| self.enqueue(key));
        let now = Now::read();
        self.enqueue_due(now);
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else {
                break;
            };
            self.member_turn(now, key, &mut done);
        }
        Ok(own)
    }

    /// Resets every endpoint of a group.
    pub(crate) fn reset_group(&mut self, group: usize, mut done: impl FnMut(u64, Outcome)) {
        let of_group = self
            .members
            .iter()
            .filter(|(_, member)| member.group == group);
        let keys: Vec<usize> = of_group.map(|(key, _)| key).collect();
        for key in keys {
            let member = self.members.remove(key);
            done(member.number, member.endpoint.reset());
        }
    }

    /// One that hangs, if one does.
    pub(crate) fn hanging(&self, now: Now) -> Option<String> {
        let mut members = self.members.iter().map(|(_, member)| member);
        let hanging = members.find(|member| now.since(member.endpoint.progressed) > HANG)?;
        Some(format!(
            "connection {} hangs: {:?}",
            hanging.number, hanging.endpoint
        ))
    }

    fn member_turn(&mut self, now: Now, key: usize, done: &mut impl FnMut(u64, Outcome)) {
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        member.queued = false;
        match member.endpoint.turn(now, &mut self.scratch) {
            Next::Wait => {}
            Next::Again => self.enqueue(key),
            Next::At(time) => self.timers.push(Reverse((time, key))),
            Next::Done(outcome) => {
                // Its close takes it out of the epoll set.
                let member = self.members.remove(key);
                done(member.number, outcome);
            }
        }
    }

    fn enqueue_due(&mut self, now: Now) {
        while let Some(Reverse((time, key))) = self.timers.peek().copied() {
            if time > now {
                return;
            }
            self.timers.pop();
            self.enqueue(key);
        }
    }

    fn enqueue(&mut self, key: usize) {
        if let Some(member) = self.members.get_mut(key)
            && !member.queued
        {
            member.queued = true;
            self.queue.push_back(key);
        }
    }
}
