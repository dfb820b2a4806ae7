//! What else of the kernel's network stands between clients and servers: the table of connections that
//! a firewall keeps, the check of where packets come from, and how fast TCP sends.

use std::iter;

use super::{Finding, Machine, Reading, Status, Wants};

/// The client's side and the server's.
const ENTRIES_PER_CONNECTION: u64 = 2;

const STRICT: u64 = 1;

/// Only where something is tracked: the file is there as soon as the module is, rules or not.
pub(super) fn conntrack(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.netfilter.nf_conntrack_max";
    const MAX: &str = "net/netfilter/nf_conntrack_max";
    if !machine.has(MAX) {
        return Ok(Finding::fine(NAME, "-", "connections are not tracked here"));
    }
    let most = machine.count(MAX)?;
    let tracked = machine.count("net/netfilter/nf_conntrack_count")?;
    if tracked == 0 {
        let why = "connections are not tracked here: no entry";
        return Ok(Finding::fine(NAME, most, why));
    }
    let needed = u64::from(wants.connections) * ENTRIES_PER_CONNECTION;
    let why = format!(
        "{ENTRIES_PER_CONNECTION} entries for each of {}; {tracked} are there now",
        wants.said()
    );
    Ok(Finding::fine(NAME, most, why).needing(needed).unless(
        most >= needed,
        "when the table is full (\"nf_conntrack: table full\" in the kernel's log), packets are \
         dropped: clients cannot connect, and servers run into connect_timeout",
        format!("sysctl -w net.netfilter.nf_conntrack_max={needed}"),
    ))
}

/// Strict checks drop what comes in by another interface than answers would leave by.
pub(super) fn reverse_path(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.ipv4.conf.*.rp_filter";
    let sources = wants.sources().iter().filter(|s| s.is_ipv4()).count();
    let all = machine.count("net/ipv4/conf/all/rp_filter")?;
    let interfaces = machine.interfaces("rp_filter")?;
    // The kernel takes the larger one of `all` and the interface's own.
    let strict = interfaces.iter().filter(|(_, own)| all.max(*own) == STRICT);
    let strict: Vec<_> = strict.map(|(name, _)| name.as_str()).collect();
    if strict.is_empty() {
        return Ok(Finding::fine(NAME, all, "no interface is strict"));
    }
    let found = format!("strict at {}", listed(&strict));
    if sources == 0 || interfaces.len() < 2 {
        let why = "does no harm: one interface, or no `source` that may be another's";
        return Ok(Finding::fine(NAME, found, why));
    }
    let why = format!("several interfaces, and `source` addresses ({sources})");
    Ok(Finding::fine(NAME, found, why).needing("2 (loose)").faulty(
        Status::Wrong,
        "answers to a `source` whose route leaves by another interface are dropped: connects \
             from there run into connect_timeout",
        // The larger one counts, so this one loosens them all.
        "sysctl -w net.ipv4.conf.all.rp_filter=2",
    ))
}

/// A host with many containers has many of them.
fn listed(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 3;
    let shown = names.iter().take(SHOWN_MAX).copied();
    let rest = names.len().saturating_sub(SHOWN_MAX);
    let rest = (rest > 0).then(|| format!("and {rest} more"));
    let words = shown.map(str::to_owned).chain(iter::once(rest).flatten());
    words.collect::<Vec<_>>().join(", ")
}

/// For information: which one is best is the network's to say.
pub(super) fn congestion(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let name = machine.parameter("net/ipv4/tcp_congestion_control")?;
    let comes_in = wants.doors().any(|(_, door)| !door.ip().is_loopback());
    let why = match name.as_str() {
        "bbr" if !comes_in && !wants.goes_out() => {
            "it paces even within the machine, where cubic moves bytes for less CPU"
        }
        "bbr" => "keeps its rate on networks that lose packets",
        _ => "backs off at each loss; bbr keeps its rate on networks that lose packets",
    };
    Ok(Finding::fine("net.ipv4.tcp_congestion_control", name, why))
}
