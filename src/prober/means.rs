//! What one target is asked with: a talk over a socket, or a program. Or what stands in the way of
//! asking at all.
//!
//! The means last as long as the target, a course as long as one check.

use mio::{Registry, Token};

use super::Target;
use super::answer::{Answer, Reason};
use super::exchange::{Exchange, Readiness, Way};
use super::program::{Plan, Programs, Run};
use super::said::Said;
use super::script::Script;
use super::tls::Client;
use crate::address::Address;
use crate::config::Check;

/// What a target is asked with.
#[derive(Debug)]
pub(super) enum Means {
    /// A connection, below TLS where there is a client of it.
    Talk(Script, Option<Client>),
    Program(Plan),
    /// A file that cannot be read.
    Obstacle(Said),
}

/// A check under way.
#[derive(Debug)]
pub(super) enum Course {
    Talk(Exchange),
    Program(Run),
}

/// Where a check is begun.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) registry: &'a Registry,
    /// The events of the check come under it.
    pub(super) token: Token,
    pub(super) programs: &'a Programs,
}

impl Means {
    pub(super) fn new(target: &Target) -> Self {
        let address = checked_address(target);
        if let Check::Exec(check) = &target.health.check {
            return Self::Program(Plan::new(check, &target.name, &address));
        }
        if let Some(obstacle) = target.kit.obstacle() {
            return Self::Obstacle(obstacle);
        }
        let script = Script::new(&target.health, &address, &target.kit);
        match (&target.health.tls, target.kit.trust()) {
            (None, _) => Self::Talk(script, None),
            (Some(tls), Some(trust)) => match Client::new(tls, trust, &address) {
                Ok(client) => Self::Talk(script, Some(client)),
                Err(said) => Self::Obstacle(said),
            },
            // Never in the clear what was to be said over TLS.
            (Some(_), None) => {
                Self::Obstacle(Said::new(format_args!("tls: nothing was read for it")))
            }
        }
    }

    /// What stands in the way of asking.
    pub(super) fn obstacle(&self) -> Option<Reason> {
        match self {
            Self::Obstacle(said) => Some(Reason::Said(*said)),
            Self::Talk(..) | Self::Program(_) => None,
        }
    }

    /// Whether a program is run.
    pub(super) fn is_program(&self) -> bool {
        matches!(self, Self::Program(_))
    }

    /// Begins a check, by `way` where that is a connection.
    ///
    /// # Errors
    /// The check is over before it began.
    pub(super) fn begin(&mut self, way: Way, site: &Site<'_>) -> Result<Course, Answer> {
        let (registry, token) = (site.registry, site.token);
        match self {
            Self::Talk(script, client) => {
                Exchange::begin(way, script, client.as_ref(), registry, token).map(Course::Talk)
            }
            Self::Program(plan) => {
                Run::begin(plan, site.programs, registry, token).map(Course::Program)
            }
            Self::Obstacle(said) => Err(Answer::Unknown(Reason::Said(*said))),
        }
    }

    /// Goes on with a check that these means have begun.
    pub(super) fn advance(
        &mut self,
        course: &mut Course,
        ready: Readiness,
        buffer: &mut [u8],
    ) -> Option<Answer> {
        match (course, self) {
            (Course::Talk(exchange), Self::Talk(script, _)) => {
                exchange.advance(ready, script, buffer)
            }
            (Course::Program(run), _) => run.advance(buffer),
            // A check ends with its means.
            (Course::Talk(_), Self::Program(_) | Self::Obstacle(_)) => None,
        }
    }

    /// Ends a check, answered or not.
    pub(super) fn part(&self, course: Course) {
        match (course, self) {
            (Course::Talk(exchange), Self::Talk(script, _)) => exchange.part(script),
            // To drop it ends it.
            (Course::Program(_) | Course::Talk(_), _) => {}
        }
    }
}

/// Whom a check asks, and from where.
pub(super) fn way(target: &Target) -> Way {
    Way {
        server: checked_address(target),
        sources: target.sources.clone(),
    }
}

/// The check may have a port of its own.
pub(super) fn checked_address(target: &Target) -> Address {
    let mut address = target.address.clone();
    if let (Address::Ip(address), Some(port)) = (&mut address, target.health.port) {
        address.set_port(port);
    }
    address
}
