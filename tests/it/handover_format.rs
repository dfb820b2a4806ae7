//! What an earlier version has said in a handover, recorded in `tests/data/handover`: this one must
//! still read it, and make the same of it.
//!
//! A file never changes once its version was released. To record the next version: raise `VERSION` in
//! `src/handover/frame.rs`, let the samples below have what is new in it (and keep what they said for
//! the versions before, with the defaults for the rest), and run
//!
//! ```text
//! EVENKEEL_RECORD=v2 cargo test --test it handover_format
//! ```
//!
//! which writes the files of that version and of no other one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::handover::frame::{OLDEST_READ, VERSION};
use evenkeel::handover::world::{
    AbsentState, AddedState, AdminState, AnswerState, BucketState, Counts, DoorState, DrainCounts,
    DrainState, EventState, FindingsState, FoundState, HistogramState, KeptState, ListenerCounts,
    ListenerState, PoolCounts, PoolState, ProcessState, ServerCounts, ServerState, WeightState,
    WishesState, World,
};
use evenkeel::handover::{ConnectionState, Connections, EndedState, PhaseState, SideState};
use evenkeel::relay::FlowState;
use evenkeel::relay::flow::Source;
use evenkeel::relay::mode::Mode;
use evenkeel::relay::state::HeldState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Of every value a name, so that none is its default, which is what a missing field would be.
fn world() -> World {
    World {
        process: process(),
        listeners: vec![
            ListenerState {
                number: 1,
                name: "web".into(),
                pool: "web".into(),
                idle_timeout: 3_600_000_000_000,
                half_close_timeout: 300_000_000_000,
                has_left: false,
                buckets: vec![BucketState {
                    source: "281473679622407".into(),
                    full_at: 5_000_000_000,
                }],
            },
            ListenerState {
                number: 2,
                name: "old".into(),
                pool: "gone".into(),
                idle_timeout: 1_000_000_000,
                half_close_timeout: 2_000_000_000,
                has_left: true,
                buckets: vec![],
            },
        ],
        doors: doors(),
        pools: vec![
            PoolState {
                number: 5,
                name: "web".into(),
                has_left: false,
            },
            PoolState {
                number: 6,
                name: "gone".into(),
                has_left: true,
            },
        ],
        servers: vec![server()],
        answers: vec![AnswerState {
            source: "db.example.com:5432".into(),
            found: vec![FoundState {
                name: Some("one".into()),
                address: "10.0.0.1:5432".into(),
                weight: Some(4),
                max_connections: Some(9),
                backup: true,
            }],
        }],
        wishes: wishes(),
        admin: AdminState {
            socket: Some("/run/evenkeel/admin.sock".into()),
            http: Some("127.0.0.1:9900".parse().unwrap()),
            http_written: Some("127.0.0.1:0".parse().unwrap()),
        },
        events: vec![event()],
        passed: vec!["web.socket".into()],
    }
}

fn process() -> ProcessState {
    ProcessState {
        pid: 4711,
        started: 1_000_000_001,
        upgrades: 3,
        file: Some("/etc/evenkeel/evenkeel.yaml".into()),
        digest: Some("0123456789abcdef".into()),
        last_connection: 99,
        connections: 8,
        has_left: true,
        kept: KeptState {
            keeper: Some("/run/evenkeel/admin.sock.keeper".into()),
            shelves: vec!["evenkeel+1".into(), "evenkeel+2".into()],
        },
    }
}

fn event() -> EventState {
    EventState {
        number: 7,
        time: 1_700_000_000_000_000,
        kind: "server_down".into(),
        text: "web/a is down: refused".into(),
    }
}

fn doors() -> Vec<DoorState> {
    vec![
        DoorState {
            listener: 1,
            written: "127.0.0.1:0".into(),
            actual: "127.0.0.1:40001".into(),
            is_shared: false,
            has_file: false,
            descriptors: 2,
        },
        DoorState {
            listener: 1,
            written: "unix:/run/web.sock".into(),
            actual: "unix:/run/web.sock".into(),
            is_shared: true,
            has_file: true,
            descriptors: 1,
        },
    ]
}

fn server() -> ServerState {
    ServerState {
        number: 8,
        pool: "web".into(),
        name: "a".into(),
        address: "127.0.0.1:9001".into(),
        has_left: true,
        standing: Some("draining".into()),
        drain: Some(DrainState {
            end: "drained".into(),
            interval: Some(100_000_000),
            quiet: 200_000_000,
            deadline: Some(600_000_000_000),
            begun: 2_000_000_000,
            began_with: 40,
            closed: 12,
        }),
        findings: Some(FindingsState {
            is_up: Some(false),
            since: 3_000_000_000,
            last: Some("refused".into()),
            share_percent: Some(50),
            reason: "connection refused".into(),
        }),
        ramp_began: 4_000_000_000,
    }
}

fn wishes() -> WishesState {
    WishesState {
        weights: vec![WeightState {
            pool: "web".into(),
            server: "a".into(),
            weight: 3,
        }],
        algorithms: BTreeMap::from([("web".into(), "least_time".into())]),
        added: vec![AddedState {
            pool: "web".into(),
            name: "added".into(),
            address: "127.0.0.1:9002".into(),
            weight: 2,
            max_connections: Some(10),
            backup: true,
        }],
        removed: vec![("web".into(), "removed".into())],
        absent: vec![AbsentState {
            pool: "web".into(),
            name: "absent".into(),
            address: "127.0.0.1:9003".into(),
            source: "srv:_web._tcp.example.com".into(),
            standing: Some("maintenance".into()),
            weight: Some(5),
        }],
    }
}

fn flow(held: HeldState, mode: Mode, source: Source) -> FlowState {
    FlowState {
        held,
        delivered: 1_234_567,
        mode,
        source,
        target_failed: true,
        source_ending: true,
        urgent: true,
    }
}

/// One of each phase; between them each thing that a flow may hold, and each way to move it.
fn connections() -> Connections {
    let until = 9_000_000_000;
    let side = SideState::Server;
    let phases = [
        PhaseState::Accepted,
        PhaseState::AcceptedWithHeader,
        PhaseState::ProxyHeader { until },
        PhaseState::ClientHello { until },
        PhaseState::Queued { ticket: 17, until },
        PhaseState::Connecting {
            since: 8_000_000_000,
        },
        PhaseState::Relaying,
        PhaseState::Lingering {
            side,
            until,
            left: 512,
        },
    ];
    let early = HeldState::Stash(b"GET / HTTP/1.1\r\n\0\xff".to_vec());
    let header = HeldState::Header(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n".to_vec());
    let flows = [
        flow(HeldState::Nothing, Mode::Copy { full: 1 }, Source::Open),
        flow(early, Mode::Pinned, Source::Doomed),
        flow(header, Mode::Copy { full: 0 }, Source::Ended),
        flow(
            HeldState::Pipe(65_536),
            Mode::Splice { small: 2 },
            Source::Failed,
        ),
    ];
    let connection = |(index, phase): (usize, PhaseState)| ConnectionState {
        id: 100 + index as u64,
        listener: 1,
        phase,
        client: Some("203.0.113.7:4711".parse().unwrap()),
        destination: Some("[2001:db8::1]:443".parse().unwrap()),
        pool: Some(5),
        server: Some(8),
        tried: vec![9, 10],
        has_server_socket: index >= 5,
        is_nagle_off: true,
        upstream: flows[index % 4].clone(),
        downstream: flows[(index + 1) % 4].clone(),
        accepted: 1,
        picked: 2,
        connected: 3,
        active: 4,
        ended: Some(EndedState {
            side: SideState::Client,
            by_failure: index % 2 == 1,
        }),
        source_bits: Some(128),
        is_judged: true,
        knows_ahead: true,
        given_ahead: 28,
        taken_ahead: 52,
        is_parked: true,
    };
    Connections {
        connections: phases.into_iter().enumerate().map(connection).collect(),
    }
}

fn counts() -> Counts {
    let words = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(word, count)| ((*word).to_owned(), *count))
            .collect()
    };
    let histogram = |most| HistogramState {
        buckets: vec![(128, 3), (256, 2), (u64::MAX, most)],
        sum_microseconds: 4242,
    };
    Counts {
        process: words(&[("accepted", 40), ("upstream_bytes", 1000)]),
        ends: words(&[("client_closed", 30), ("server_reset", 1)]),
        lag: histogram(2),
        listeners: BTreeMap::from([(
            1,
            ListenerCounts {
                accepted: 40,
                ended: 31,
                over_limits: 2,
                refused: words(&[("limit", 2)]),
            },
        )]),
        pools: BTreeMap::from([(
            5,
            PoolCounts {
                connect: histogram(1),
                connection: histogram(0),
            },
        )]),
        servers: BTreeMap::from([(
            8,
            ServerCounts {
                connected: 38,
                upstream_bytes: 1000,
                downstream_bytes: 2000,
                failed: words(&[("refused", 4)]),
                checks: words(&[("ok", 5)]),
                bad_in_a_row: 2,
                ejected_until: 7_000_000_000,
                ejections: 1,
                drain: Some(DrainCounts {
                    closed: 6,
                    next_at: 8_000_000_000,
                }),
            },
        )]),
        events: vec![event()],
    }
}

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/handover")
        .join(version)
}

/// The value of a file of version 1, also where a later version has said more.
#[track_caller]
fn is_read<T>(name: &str, expected: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    if let Ok(version) = std::env::var("EVENKEEL_RECORD") {
        fs::create_dir_all(folder(&version)).unwrap();
        let text = serde_json::to_string_pretty(expected).unwrap();
        fs::write(folder(&version).join(name), text + "\n").unwrap();
    }
    let text = fs::read_to_string(folder("v1").join(name)).unwrap();
    let read: T = serde_json::from_str(&text).unwrap();
    assert_eq!(&read, expected, "{name}");
    let mut more: Value = serde_json::from_str(&text).unwrap();
    add_unknown(&mut more);
    let read: T = serde_json::from_value(more).unwrap();
    assert_eq!(&read, expected, "{name} with fields of a later version");
}

/// A field of a later version to every object that has fields; maps have names of their own.
fn add_unknown(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(add_unknown);
            // A map of counts has nothing but numbers in it.
            let is_map = fields.values().all(Value::is_number);
            let names = [
                "number",
                "id",
                "pid",
                "name",
                "delivered",
                "connected",
                "accepted",
            ];
            if !is_map && names.iter().any(|name| fields.contains_key(*name)) {
                fields.insert("of_a_later_version".into(), Value::from(vec![1, 2]));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(add_unknown),
        _ => {}
    }
}

#[test]
fn what_version_1_has_said_of_the_world_is_read() {
    is_read("world.json", &world());
}

#[test]
fn what_version_1_has_said_of_connections_is_read() {
    is_read("connections.json", &connections());
    let descriptors = connections()
        .connections
        .iter()
        .map(ConnectionState::descriptors)
        .sum::<usize>();
    assert_eq!(descriptors, 19, "8 clients, 3 servers, 4 pipes");
}

#[test]
fn what_version_1_has_counted_is_read() {
    is_read("counts.json", &counts());
}

#[test]
fn each_version_that_is_read_is_recorded() {
    for version in OLDEST_READ..=VERSION {
        for name in ["world.json", "connections.json", "counts.json"] {
            let path = folder(&format!("v{version}")).join(name);
            assert!(
                path.is_file(),
                "{} was not recorded: see the top",
                path.display()
            );
        }
    }
}
