//! What the process is allowed: time on cores, and ports below the privileged border.

use super::{Finding, Machine, Reading, Status, Wants};

/// CAP_NET_BIND_SERVICE of capability.h, as a bit.
const NET_BIND_SERVICE: u64 = 1 << 10;

/// A worker without a core to itself stands still while others run, and with it its connections.
pub(super) fn cores(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "cpu";
    let cores = machine.cores()?;
    let quota = machine.quota()?;
    let workers = wants.workers;
    let throttled = quota.filter(|quota| *quota < workers as f64);
    let found = match quota {
        Some(quota) => format!("{} of {cores}", shown(quota)),
        None => cores.to_string(),
    };
    let finding = Finding::fine(NAME, found, "cores: one for each worker").needing(workers);
    if let Some(quota) = throttled {
        let fewer = quota.max(1.0).floor();
        // `auto` has no fewer than one worker, however little of a core there is.
        let fix = match fewer < workers as f64 {
            true => format!("CPUQuota={workers}00% in the unit, or workers: {fewer}"),
            false => format!("CPUQuota={workers}00% in the unit, or cpu.max of its cgroup"),
        };
        let effect = format!(
            "once workers have used up the quota of {} cores, all connections stand still until the \
             next period, up to 100 ms",
            shown(quota)
        );
        return Ok(finding.faulty(Status::Low, effect, fix));
    }
    Ok(finding.unless(
        cores >= workers,
        "workers take turns on the cores: latencies grow, throughput does not",
        format!("workers: {cores}"),
    ))
}

/// At most two digits behind the point.
fn shown(cores: f64) -> String {
    let text = format!("{cores:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn capabilities(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    const NAME: &str = "capabilities";
    const BORDER: &str = "net/ipv4/ip_unprivileged_port_start";
    let capabilities = machine.capabilities()?;
    if capabilities & NET_BIND_SERVICE != 0 {
        let why = "the process may bind every port";
        return Ok(Finding::fine(NAME, "CAP_NET_BIND_SERVICE", why));
    }
    let border = machine.count(BORDER)?;
    let admin = wants.config.admin.http.map(|address| ("admin", address));
    let doors = wants.doors().chain(admin);
    let is_privileged = |port: u16| port > 0 && u64::from(port) < border;
    // Port 0 is one that the kernel picks.
    let privileged = doors.filter(|(_, address)| is_privileged(address.port()));
    let Some((listener, address)) = privileged.min_by_key(|(_, address)| address.port()) else {
        let why = format!("every port is {border} or above, which anybody may bind");
        return Ok(Finding::fine(NAME, "none", why));
    };
    let why = format!("{listener} binds port {}, below {border}", address.port());
    Ok(Finding::fine(NAME, "none", why)
        .needing("CAP_NET_BIND_SERVICE")
        .faulty(
            Status::Wrong,
            format!("evenkeel does not start: cannot bind {address}: permission denied"),
            format!(
                "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or sysctl -w \
                 net.ipv4.ip_unprivileged_port_start={}",
                address.port()
            ),
        ))
}
