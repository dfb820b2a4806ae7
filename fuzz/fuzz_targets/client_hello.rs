//! The ClientHello: read alike however it is cut into segments and records.
#![no_main]

use evenkeel::wire::client_hello::{PREFIX_MAX_BYTES, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    for end in bytes.len().saturating_sub(64)..bytes.len() {
        match read(&bytes[..end]) {
            Ok(None) => assert!(end < PREFIX_MAX_BYTES),
            found => assert_eq!(found, whole),
        }
    }
    if let Ok(Some(hello)) = &whole
        && let Some(name) = &hello.server_name
    {
        assert!(!name.is_empty() && name.len() <= 253);
        assert!(name.is_ascii() && *name == name.to_ascii_lowercase());
    }
    // The same bytes as a message, cut into records of the size that the first one says.
    let Some((size, message)) = bytes.split_first() else {
        return;
    };
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap();
        [&[22, 3, 1][..], &length.to_be_bytes(), part].concat()
    };
    let cut = |size: usize| message.chunks(size).flat_map(record).collect::<Vec<_>>();
    let (one, many) = (cut(16_384), cut(usize::from(*size).max(1)));
    if many.len() < PREFIX_MAX_BYTES {
        assert_eq!(read(&one), read(&many));
    }
});
