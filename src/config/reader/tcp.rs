//! What may be asked of the kernel for a TCP socket, as it is written.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::mistake::Mistakes;
use super::super::tree::{Kind, Path, Section, value};
use super::super::{Keepalive, ServerTcp, terms, words};
use super::plain;

/// The kernel takes no more (tcp(7), MAX_TCP_KEEPCNT).
const PROBES_MAX: NonZeroU32 = NonZeroU32::new(127).expect("it is not zero");

/// The section `tcp` of a pool, which may be absent as a whole.
pub(super) fn server_tcp(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<ServerTcp> {
    let (key, node) = section.entry("tcp")?;
    let path = Path::Key(section.path, &key.text);
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let tcp = ServerTcp {
        keepalive: keepalive(&mut section, mistakes),
        user_timeout: user_timeout(&mut section, mistakes),
    };
    section.close(mistakes);
    Some(tcp)
}

/// `off`, which is also the default, a duration, or keys of its own.
pub(super) fn keepalive(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Keepalive> {
    let (key, node) = section.entry("keepalive")?;
    let path = Path::Key(section.path, &key.text);
    if let Kind::Text(_) = node.kind {
        let idle = value(node, &path, mistakes, |text| {
            words::word_or("off", text, terms::keepalive_seconds)
        });
        return plain(idle).flatten().map(|idle| Keepalive {
            idle,
            interval: None,
            probes: None,
        });
    }
    let mut section = Section::open(node, key.place, &path, mistakes)?;
    let seconds = terms::keepalive_seconds;
    let idle = section.required("idle", "60s", mistakes);
    let idle_path = Path::Key(&path, "idle");
    let idle = idle.and_then(|(_, node)| value(node, &idle_path, mistakes, seconds));
    let interval = plain(section.value("interval", mistakes, seconds));
    let probes = plain(section.value("probes", mistakes, |text| {
        words::number(text, NonZeroU32::MIN..=PROBES_MAX)
    }));
    section.close(mistakes);
    Some(Keepalive {
        idle: plain(idle)?,
        interval,
        probes,
    })
}

/// How long sent bytes may stay unacknowledged; absent is the kernel's.
pub(super) fn user_timeout(section: &mut Section<'_>, mistakes: &mut Mistakes) -> Option<Duration> {
    plain(section.value("user_timeout", mistakes, terms::user_timeout))
}
