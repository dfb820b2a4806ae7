//! The PROXY header: read alike however it is cut, within its bounds, and the same again once written.
#![no_main]

use evenkeel::wire::proxy_protocol::{HEADER_MAX_BYTES, Version, read, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    // The last places are where most is known: all of them would make long inputs slow.
    for end in bytes.len().saturating_sub(64)..bytes.len() {
        match read(&bytes[..end]) {
            Ok(None) => assert!(end < HEADER_MAX_BYTES),
            found => assert_eq!(found, whole),
        }
    }
    let Ok(Some((origin, length))) = whole else {
        return;
    };
    assert!(length <= bytes.len() && length <= HEADER_MAX_BYTES);
    assert_eq!(read(&bytes[..length]), whole);
    for version in [Version::V1, Version::V2] {
        let written = write(origin, version);
        let (again, length) = read(&written).unwrap().unwrap();
        assert_eq!(length, written.len());
        assert_eq!(write(again, version), written);
    }
});
