//! A file with servers in it, one a line or as YAML: whatever is taken from it can be a pool's server.
#![no_main]

use std::path::Path;

use evenkeel::config::{WEIGHT_MAX, read_servers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for name in ["servers.txt", "servers.yaml"] {
        let Ok(servers) = read_servers(Path::new(name), bytes) else {
            continue;
        };
        for (place, server) in servers.iter().enumerate() {
            assert!(server.weight.is_none_or(|weight| weight <= WEIGHT_MAX));
            assert!(server.address.ip().is_none_or(|ip| ip.port() != 0));
            let before = &servers[..place];
            assert!(before.iter().all(|other| other.address != server.address));
        }
    }
});
