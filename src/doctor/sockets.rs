//! What the kernel keeps for TCP sockets: those that wait to be accepted, those half-open, the memory
//! of all, and those that are closed and not yet done.

use super::{Finding, Machine, Reading, Wants};

/// Each of the two sockets of a connection takes a page at least while bytes are under way.
const PAGES_PER_CONNECTION: u64 = 2;

/// One in so many connections may be closed and wait for its peer's last acknowledgement: far more
/// than in a network that works.
const CLOSED_SHARE: u32 = 4;

/// The longest queue that a listener asks for, and whose it is.
fn longest<'c>(wants: &Wants<'c>) -> Option<(u64, &'c str)> {
    let listeners = wants.config.listeners.iter();
    let all = listeners.map(|listener| (u64::from(listener.tcp.backlog.get()), &*listener.name));
    // Of equal ones the first, which is the one that people find first in their file.
    all.rev().max_by_key(|(backlog, _)| *backlog)
}

/// listen(2) cuts a longer one without a word, at unix sockets as well.
pub(super) fn backlog(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.core.somaxconn";
    let most = machine.count("net/core/somaxconn")?;
    let Some((needed, listener)) = longest(wants) else {
        return Ok(Finding::fine(NAME, most, "there is no listener"));
    };
    let why = format!("backlog of listener {listener}, for each worker");
    Ok(Finding::fine(NAME, most, why).needing(needed).unless(
        most >= needed,
        format!(
            "no more than {most} connections wait to be accepted: of a larger burst clients connect \
             a second or more late, and at unix sockets are refused"
        ),
        format!("sysctl -w net.core.somaxconn={needed}"),
    ))
}

/// The kernel looks at it only without SYN cookies, and then leaves a quarter to peers that it knows.
pub(super) fn half_open(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.ipv4.tcp_max_syn_backlog";
    let most = machine.count("net/ipv4/tcp_max_syn_backlog")?;
    if machine.count("net/ipv4/tcp_syncookies")? != 0 {
        let why = "without effect while net.ipv4.tcp_syncookies is on";
        return Ok(Finding::fine(NAME, most, why));
    }
    let needed = longest(wants).map_or(0, |(backlog, _)| backlog.saturating_mul(4).div_ceil(3));
    let why = "the longest backlog and a third, as net.ipv4.tcp_syncookies is off";
    Ok(Finding::fine(NAME, most, why).needing(needed).unless(
        most >= needed,
        "in a burst, or a flood of SYNs, new clients connect seconds late or not at all",
        "sysctl -w net.ipv4.tcp_syncookies=1",
    ))
}

/// Against the last of the three values, beyond which the kernel drops; an idle socket takes nothing.
pub(super) fn memory(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.ipv4.tcp_mem";
    let [_, _, most] = machine.counts::<3>("net/ipv4/tcp_mem")?;
    let needed = u64::from(wants.connections) * PAGES_PER_CONNECTION;
    let why = format!("pages, one for each socket: {}", wants.said());
    let effect = format!(
        "when {most} pages hold bytes (\"TCP: out of memory\" in the kernel's log), segments are \
         dropped and every connection of the machine stalls"
    );
    // Three values as the kernel makes them by default: 3/4, 1 and 3/2 of the same.
    let middle = needed;
    let fix = match machine.memory_pages() {
        Ok(all) if needed > all / 2 => {
            let fitting = all / 2 / PAGES_PER_CONNECTION;
            format!("max_connections: {fitting}, for which there is memory here; or more memory")
        }
        _ => format!(
            "sysctl -w net.ipv4.tcp_mem=\"{} {middle} {}\"",
            middle / 4 * 3,
            middle.saturating_mul(3).div_ceil(2)
        ),
    };
    let finding = Finding::fine(NAME, most, why).needing(needed);
    Ok(finding.unless(most >= needed, effect, fix))
}

/// Beyond it the kernel gives up on a closed socket at once, with what it had yet to deliver.
pub(super) fn orphans(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "net.ipv4.tcp_max_orphans";
    let most = machine.count("net/ipv4/tcp_max_orphans")?;
    let needed = u64::from(wants.connections.div_ceil(CLOSED_SHARE));
    let why = format!(
        "sockets closed before their peer has acknowledged all, a quarter of {}",
        wants.said()
    );
    Ok(Finding::fine(NAME, most, why).needing(needed).unless(
        most >= needed,
        "when many connections end at once (\"too many orphaned sockets\"), the kernel resets some \
         whose last bytes have not arrived",
        format!("sysctl -w net.ipv4.tcp_max_orphans={needed}"),
    ))
}

const _: () = assert!(CLOSED_SHARE == 4, "the text says a quarter");
