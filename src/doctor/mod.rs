//! Whether a machine is large enough for a configuration: what there is, what is needed, what a user
//! would notice, and the line that mends it.
//!
//! `machine` reads, below a root so that tests can make machines up; `wants` says what the config asks
//! for; every other file has checks, pure but for what they have read, which answer with a
//! [`Finding`]. Nothing is changed, and what cannot be read is a finding as well, never a failure.
//! Knows no terminal: how findings look is `cli`'s.

mod cgroup;
mod descriptors;
mod machine;
mod network;
mod ports;
mod rights;
mod sockets;
mod survival;
#[cfg(test)]
mod tests;
mod wants;

use serde::Serialize;

use crate::config::Config;

pub use machine::{Machine, Reading, Unread};
pub use wants::{Basis, Wants};

/// How something is. The most severe first: so are findings sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There is less of it than may be needed.
    Low,
    /// It is no amount, and stands in the way.
    Wrong,
    /// It cannot be read.
    Unknown,
    /// It is enough.
    Ok,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
            Self::Ok => "ok",
        }
    }

    /// Whether somebody should do something about it.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(self, Self::Low | Self::Wrong)
    }
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, by the name that its documentation has.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// What is there; `None` where that is not known.
    pub found: Option<String>,
    /// The least that does; `None` where any value does.
    pub needed: Option<String>,
    /// Where the need comes from, or what follows from the value; for the unknown, why it is.
    pub why: String,
    /// What a user would notice; with a fault alone.
    pub effect: Option<String>,
    /// The line that mends it; with a fault alone.
    pub fix: Option<String>,
}

impl Finding {
    /// One that nobody needs to do anything about.
    fn fine(name: &'static str, found: impl ToString, why: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: Some(found.to_string()),
            needed: None,
            why: why.into(),
            effect: None,
            fix: None,
        }
    }

    fn unknown(name: &'static str, unread: &Unread) -> Self {
        Self {
            name,
            status: Status::Unknown,
            found: None,
            needed: None,
            why: unread.to_string(),
            effect: None,
            fix: None,
        }
    }

    fn needing(mut self, needed: impl ToString) -> Self {
        self.needed = Some(needed.to_string());
        self
    }

    /// The same as a fault: what will be noticed, and the line against it.
    fn faulty(mut self, status: Status, effect: impl Into<String>, fix: impl Into<String>) -> Self {
        self.status = status;
        self.effect = Some(effect.into());
        self.fix = Some(fix.into());
        self
    }

    /// The same as `low` where less was found than is needed.
    fn unless(self, is_enough: bool, effect: impl Into<String>, fix: impl Into<String>) -> Self {
        match is_enough {
            true => self,
            false => self.faulty(Status::Low, effect, fix),
        }
    }
}

/// What a check is given: the machine, and what is wanted of it.
type Check = fn(&Machine, &Wants<'_>) -> Reading<Finding>;

/// Every check under the name that its finding has, in the order in which they are shown.
const CHECKS: &[(&str, Check)] = &[
    ("RLIMIT_NOFILE", descriptors::open_files),
    ("fs.nr_open", descriptors::open_files_most),
    ("fs.file-max", descriptors::of_the_machine),
    ("fs.pipe-user-pages-soft", descriptors::pipes),
    ("survive_restart", survival::survival),
    ("cpu", rights::cores),
    ("capabilities", rights::capabilities),
    ("net.core.somaxconn", sockets::backlog),
    ("net.ipv4.tcp_max_syn_backlog", sockets::half_open),
    ("net.ipv4.tcp_mem", sockets::memory),
    ("net.ipv4.tcp_max_orphans", sockets::orphans),
    ("net.ipv4.ip_local_port_range", ports::range),
    ("net.ipv4.ip_local_reserved_ports", ports::reserved),
    ("net.ipv4.tcp_tw_reuse", ports::reuse),
    ("net.netfilter.nf_conntrack_max", network::conntrack),
    ("net.ipv4.conf.*.rp_filter", network::reverse_path),
    ("net.ipv4.tcp_congestion_control", network::congestion),
];

/// What has been found, and against what.
#[derive(Debug)]
pub struct Diagnosis<'c> {
    /// What the config asks for.
    pub wants: Wants<'c>,
    /// The most severe first, and of the same severity in a fixed order.
    pub findings: Vec<Finding>,
}

/// Compares a machine with what `config` may need of it.
#[must_use]
pub fn examine<'c>(machine: &Machine, config: &'c Config) -> Diagnosis<'c> {
    let wants = Wants::of(config, machine);
    let found = |(name, check): &(&'static str, Check)| {
        check(machine, &wants).unwrap_or_else(|unread| Finding::unknown(name, &unread))
    };
    let mut findings: Vec<_> = CHECKS.iter().map(found).collect();
    findings.sort_by_key(|finding| finding.status);
    Diagnosis { wants, findings }
}
