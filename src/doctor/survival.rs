//! Whether connections would go on after a kill (`survive_restart`): how many of them whoever holds their
//! sockets has room for. That is systemd where it has started the process, else a keeper.
//!
//! What a store holds is `park`'s to say. systemd tells its limit to what it starts, from 254 on: what it
//! has not said is not guessed.

use super::{Finding, Machine, Reading, Unread, Wants};
use crate::park::{KEEPER_MAX, SYSTEMD_MAX, keeper_room};

const NAME: &str = "survive_restart";
/// In systemd's store beside connections: the memory of two processes, and what has ended and is not
/// dropped yet.
const SPARE: u64 = 100;
/// Limits are advised in round numbers.
const ROUND: u64 = 100;

pub(super) fn survival(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    if !wants.config.survive_restart {
        let why = "connections end with a process that is killed";
        return Ok(Finding::fine(NAME, "off", why));
    }
    match machine.variable("NOTIFY_SOCKET")? {
        Some(_) => in_systemd(machine, wants),
        None => in_keeper(machine, wants),
    }
}

/// Descriptors that the unit must allow for.
fn stored(wants: &Wants<'_>) -> u64 {
    let connections = u64::from(wants.connections.min(SYSTEMD_MAX));
    (2 * connections + SPARE).next_multiple_of(ROUND)
}

fn in_systemd(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let needed = stored(wants);
    let why = format!(
        "descriptors in systemd's store, two for each of at most {SYSTEMD_MAX} connections; {}",
        wants.said()
    );
    let Some(most) = machine.variable("FDSTORE")? else {
        let text = "systemd before 254 does not say, later ones where it is 0: \
                    systemctl show -p FileDescriptorStoreMax evenkeel";
        let unknown = Finding::unknown(NAME, &Unread(text.to_owned()));
        return Ok(unknown.needing(needed));
    };
    let most: u64 = most
        .parse()
        .map_err(|_| Unread(format!("FDSTORE in the environment says {most:?}")))?;
    let kept = most.saturating_sub(SPARE) / 2;
    Ok(Finding::fine(NAME, most, why).needing(needed).unless(
        most >= needed,
        format!("once it is killed, no more than {kept} of its connections go on"),
        format!("FileDescriptorStoreMax={needed} in the unit"),
    ))
}

/// It has the limit of the process that starts it.
fn in_keeper(machine: &Machine, wants: &Wants<'_>) -> Reading<Finding> {
    let room = keeper_room(machine.descriptors()?);
    let needed = wants.connections.min(KEEPER_MAX);
    let why = format!(
        "connections in a keeper, two descriptors each; under systemd it takes \
         FileDescriptorStoreMax={} in the unit",
        stored(wants)
    );
    let limit = (u64::from(needed) + SPARE) * 2;
    Ok(Finding::fine(NAME, room, why).needing(needed).unless(
        room >= needed,
        format!("once it is killed, no more than {room} of its connections go on"),
        format!("in a shell, as root: ulimit -Hn {limit}; then start evenkeel anew"),
    ))
}
