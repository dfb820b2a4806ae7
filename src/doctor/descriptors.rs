//! Open files and pipes: of the process, of any process, of the machine, and the memory of a user's
//! pipes. What a connection takes is `process`'s to say, what a pipe should hold is `relay`'s.

use super::{Basis, Finding, Machine, Reading, Wants};
use crate::process::{connections_within, descriptors_for};
use crate::relay::pipe_cache::Quota;
use crate::sys::limits::page_size;

/// Limits are advised in round numbers.
const ROUND: u64 = 1024;

/// Descriptors that the process needs for all of its connections.
fn needed(machine: &Machine, wants: &Wants<'_>) -> u64 {
    // Nobody has asked for those that are assumed: less of them is no fault.
    let connections = match wants.basis {
        Basis::Written | Basis::Promised => wants.connections,
        Basis::Assumed => 1,
    };
    descriptors_for(wants.config, wants.workers, connections, machine.pipes())
}

/// By the same arithmetic as the start, so that both say the same of the same machine.
pub(super) fn open_files(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let limit = machine.descriptors()?;
    let needed = needed(machine, wants);
    let fitting = connections_within(wants.config, wants.workers, limit, machine.pipes());
    let effect = match wants.basis {
        Basis::Written => format!(
            "evenkeel does not start: {fitting} connections fit, and \
             max_connections asks for {}",
            wants.connections
        ),
        Basis::Promised => format!(
            "max_connections: auto becomes {fitting}: a connection beyond is reset, with `limit` in \
             the access log, before its listener or queue is full"
        ),
        Basis::Assumed => "evenkeel does not start: not one connection fits".to_owned(),
    };
    let round = needed.next_multiple_of(ROUND);
    let fix = format!("LimitNOFILE={round} in the unit; in a shell, as root: ulimit -Hn {round}");
    let found = match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => limit.to_string(),
    };
    let why = format!("room for {fitting} connections, two descriptors each");
    let finding = Finding::fine("RLIMIT_NOFILE", found, why).needing(needed);
    Ok(finding.unless(limit >= needed, effect, fix))
}

/// It matters only to whoever would raise the limit of the process.
pub(super) fn open_files_most(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let most = machine.count("fs/nr_open")?;
    let needed = needed(machine, wants);
    let has_enough = machine.descriptors().is_ok_and(|limit| limit >= needed);
    let round = needed.next_multiple_of(ROUND);
    let why = "what LimitNOFILE and ulimit -Hn can be raised to";
    Ok(Finding::fine("fs.nr_open", most, why)
        .needing(needed)
        .unless(
            has_enough || most >= needed,
            "LimitNOFILE and ulimit -Hn cannot be raised to what is needed",
            format!("sysctl -w fs.nr_open={round}"),
        ))
}

/// The kernel spares who has CAP_SYS_ADMIN; a service that others share a machine with should not
/// live by that.
pub(super) fn of_the_machine(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let most = machine.count("fs/file-max")?;
    let (config, workers) = (wants.config, wants.workers);
    let needed = descriptors_for(config, workers, wants.connections, machine.pipes());
    // Whatever else runs has some as well.
    let round = needed.saturating_mul(2).next_multiple_of(ROUND);
    let why = format!(
        "all open files of the machine, which the two processes of an upgrade share; {}",
        wants.said()
    );
    Ok(Finding::fine("fs.file-max", most, why)
        .needing(needed)
        .unless(
            most >= needed,
            "accepting pauses for 100 ms at a time (\"too many open files in system\"), and other \
             programs cannot open files",
            format!("sysctl -w fs.file-max={round}"),
        ))
}

/// Enough is what gives each worker its least number of pipes, each of full size.
pub(super) fn pipes(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "fs.pipe-user-pages-soft";
    let limits = machine.pipes();
    let workers = wants.workers;
    let page = page_size();
    let quota = Quota::new(limits, u64::MAX, workers);
    let (count, size) = (quota.pipes(), quota.pipe_bytes() >> 10);
    let Some(bytes) = limits.user_soft else {
        let why = format!("no limit here: {count} pipes of {size} KiB for each worker");
        return Ok(Finding::fine(NAME, "unlimited", why));
    };
    // What is not readable is taken for the default by evenkeel, but need not be so.
    let soft = machine.count("fs/pipe-user-pages-soft")?;
    let hard = machine.count("fs/pipe-user-pages-hard").unwrap_or(0);
    let needed = Quota::memory_wanted(workers).div_ceil(page);
    let effect = format!(
        "{count} pipes of {size} KiB for each worker: smaller ones cost bulk transfers more system \
         calls, and beyond that many stalled ones bytes are copied instead of spliced"
    );
    let fix = if limits.max_size < Quota::pipe_wanted() {
        format!("sysctl -w fs.pipe-max-size={}", Quota::pipe_wanted())
    } else if hard > 0 && hard < needed as u64 && (soft == 0 || hard <= soft) {
        format!("sysctl -w fs.pipe-user-pages-hard={needed}")
    } else {
        format!("sysctl -w fs.pipe-user-pages-soft={needed}")
    };
    let why = format!("{count} pipes of {size} KiB for each worker, to splice bulk transfers");
    let is_enough = bytes / page >= needed && limits.max_size >= Quota::pipe_wanted();
    let finding = Finding::fine(NAME, bytes / page, why).needing(needed);
    Ok(finding.unless(is_enough, effect, fix))
}
