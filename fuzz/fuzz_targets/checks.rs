//! What servers answer to health checks: one answer that can be shown, however it is cut.
#![no_main]

use std::sync::{Arc, LazyLock};

use evenkeel::config::{Health, read};
use evenkeel::prober::{Kit, fuzzing};
use libfuzzer_sys::fuzz_target;

/// Every kind that says something. The password is the program's own name.
const CHECKS: [&str; 12] = [
    "type: http, path: /",
    "type: http, path: /, expect_status: 200, expect_body: abab",
    "type: send_expect, send: a, expect: abac",
    "type: redis",
    "type: redis, password_file: /proc/self/comm",
    "type: postgres, user: u",
    "type: postgres, user: u, role: primary",
    "type: postgres, user: u, role: replica, password_file: /proc/self/comm",
    "type: mysql, user: u",
    "type: mysql, user: u, password_file: /proc/self/comm",
    "type: grpc",
    "type: agent, port: 1",
];

/// More than that is never shown of a server's words.
const SHOWN_MAX_BYTES: usize = 1024;

static HEALTHS: LazyLock<Vec<(Arc<Health>, Kit)>> = LazyLock::new(|| {
    let listeners = "listeners: {l: {bind: \"127.0.0.1:1\", pool: p0}}";
    let mut text = format!("{listeners}\npools:\n");
    for (number, check) in CHECKS.iter().enumerate() {
        text += &format!("  p{number}: {{health: {{{check}}}, servers: [\"127.0.0.1:2\"]}}\n");
    }
    let config = read("config", &text).unwrap();
    let healths = config.pools.into_iter().filter_map(|pool| pool.health);
    let healths = healths.map(|health| (Arc::clone(&health), Kit::read(&health)));
    healths.collect()
});

fuzz_target!(|bytes: &[u8]| {
    let [check, size, bytes @ ..] = bytes else {
        return;
    };
    let (health, kit) = &HEALTHS[usize::from(*check) % CHECKS.len()];
    assert!(kit.obstacle().is_none());
    let address = "127.0.0.1:2"
        .parse::<std::net::SocketAddr>()
        .unwrap()
        .into();
    let size = usize::from(*size).max(1);
    let whole = fuzzing::said(health, &address, kit, std::iter::once(bytes));
    let cut = fuzzing::said(health, &address, kit, bytes.chunks(size));
    assert_eq!(cut, whole);
    assert!(whole.len() <= SHOWN_MAX_BYTES);
    assert!(!whole.contains(char::is_control), "{whole:?}");
});
