//! The nodes of `admin.nodes` for the page: what each told last, asked again once that is a second old
//! and somebody looks.
//!
//! Nobody looks, nobody is asked. Each node is asked by a task of its own, so that one that is dead is
//! in nobody's way; however many look, a node hears one question at a time. Addresses come from the
//! configuration alone, and nothing of a visitor's request goes along.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::ask::{Limits, ask};
use super::comparison::Told;
use super::node::Node;
use super::view::View;
use crate::clock::Now;

/// What a node has told is good for so long.
const FRESH: Duration = Duration::from_secs(1);
/// A visitor waits so long for nodes that are being asked; then it gets what was told before.
const PATIENCE: Duration = Duration::from_millis(300);
/// Of one node. 4 MiB are a status of some 9,000 servers.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(2),
    bytes: 4 << 20,
};

/// What is known of a node.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The last answer and when it came; `None` before the first.
    told: Option<(Now, Result<View, String>)>,
    is_being_asked: bool,
}

impl Known {
    fn is_due(&self, now: Now) -> bool {
        let told = self.told.as_ref();
        !self.is_being_asked && told.is_none_or(|(at, _)| now.since(*at) >= FRESH)
    }
}

#[derive(Debug)]
struct Slot {
    node: Node,
    known: watch::Sender<Known>,
}

/// All of them.
#[derive(Debug)]
pub(in crate::admin) struct Watch {
    /// How this node is called among them.
    own: String,
    slots: Vec<Arc<Slot>>,
}

impl Watch {
    /// Of these nodes but for this one, which answers at `own`: so the list can be the same on each.
    pub(in crate::admin) fn new(nodes: &[SocketAddr], own: Option<SocketAddr>) -> Self {
        let others = nodes
            .iter()
            .filter(|node| own.is_none_or(|own| !is_same(own, **node)));
        let slot = |node: &SocketAddr| {
            Arc::new(Slot {
                node: Node::from(*node),
                known: watch::Sender::default(),
            })
        };
        let own = own.filter(|own| !own.ip().is_unspecified());
        Self {
            own: own.map_or("this node".to_owned(), |own| own.to_string()),
            slots: others.map(slot).collect(),
        }
    }

    /// Whether there is nobody beside this node.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// This node, whose status is `own`, and then what the others have told.
    pub(super) async fn look(&self, own: &Value) -> Vec<Told> {
        let now = Now::read();
        self.slots.iter().for_each(|slot| refresh(slot, now));
        let until = Instant::now() + PATIENCE;
        let mut all = vec![Told {
            name: self.own.clone(),
            view: Ok(View::of(own)),
        }];
        for slot in &self.slots {
            let mut known = slot.known.subscribe();
            let answered = known.wait_for(|known| !known.is_being_asked);
            // Late or not: what is known by now is what there is to tell.
            drop(timeout_at(until, answered).await);
            all.push(slot.told());
        }
        all
    }
}

impl Slot {
    fn told(&self) -> Told {
        let known = self.known.borrow();
        let told = known.told.as_ref().map(|(_, view)| view.clone());
        Told {
            name: self.node.to_string(),
            view: told.unwrap_or_else(|| Err("no answer yet".to_owned())),
        }
    }
}

/// Asks the node where that is due, and waits for nothing.
fn refresh(slot: &Arc<Slot>, now: Now) {
    let begins = slot.known.send_if_modified(|known| {
        let is_due = known.is_due(now);
        known.is_being_asked |= is_due;
        is_due
    });
    if begins {
        let slot = Arc::clone(slot);
        tokio::spawn(async move {
            let answer = ask(&slot.node, LIMITS).await;
            let view = answer.map(|status| View::of(&status));
            slot.known.send_replace(Known {
                told: Some((Now::read(), view.map_err(|error| error.to_string()))),
                is_being_asked: false,
            });
        });
    }
}

/// Whether what listens at `own` answers at `node`: there, or at every address of this machine.
fn is_same(own: SocketAddr, node: SocketAddr) -> bool {
    let is_any = own.ip().is_unspecified();
    own.port() == node.port() && (own.ip() == node.ip() || (is_any && is_local(node.ip())))
}

/// Whether the address is one of this machine's: only those are reached from themselves. Nothing is
/// sent.
fn is_local(ip: IpAddr) -> bool {
    let any = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    ip.is_loopback() || source.is_ok_and(|source| source.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn this_node_is_not_asked_for_itself() {
        let nodes = [address("127.0.0.1:9900"), address("192.0.2.1:9900")];
        let others = |own: &str| {
            let watch = Watch::new(&nodes, Some(address(own)));
            let names: Vec<_> = watch
                .slots
                .iter()
                .map(|slot| slot.node.to_string())
                .collect();
            (watch.own, names.join(" "))
        };
        let both = "127.0.0.1:9900 192.0.2.1:9900".to_owned();
        assert_eq!(
            others("127.0.0.1:9900"),
            ("127.0.0.1:9900".into(), "192.0.2.1:9900".into())
        );
        assert_eq!(
            others("127.0.0.1:9901"),
            ("127.0.0.1:9901".into(), both.clone())
        );
        assert_eq!(
            others("0.0.0.0:9900"),
            ("this node".into(), "192.0.2.1:9900".into())
        );
        assert_eq!(others("0.0.0.0:9901"), ("this node".into(), both));
        assert!(Watch::new(&[], None).is_empty());
    }

    #[test]
    fn a_node_is_asked_again_when_its_answer_is_old() {
        let now = Now::default() + Duration::from_secs(60);
        let mut known = Known::default();
        assert!(known.is_due(now), "never asked");
        known.is_being_asked = true;
        assert!(!known.is_due(now), "one question at a time");
        known = Known {
            told: Some((now, Err(String::new()))),
            is_being_asked: false,
        };
        assert!(!known.is_due(now + (FRESH - Duration::from_millis(1))));
        assert!(known.is_due(now + FRESH));
    }
}
