//! PostgreSQL's messages: the same however they are cut, bodies that are anything, and what is
//! written read again.
#![no_main]

use evenkeel::wire::postgres::{
    Authentication, MESSAGE_MAX_BYTES, MessageReader, error, has_mechanism, parameter, password,
    sasl_initial, startup, two_columns,
};
use libfuzzer_sys::fuzz_target;

/// Kinds and bodies, and whether all that came may be messages.
fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<(u8, Vec<u8>)>, bool) {
    let mut reader = MessageReader::default();
    let mut messages = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.read(&mut piece) {
                Ok(Some(message)) => messages.push((message.kind, message.body.to_vec())),
                Ok(None) => assert!(piece.is_empty()),
                Err(_) => return (messages, false),
            }
        }
    }
    (messages, true)
}

fn is_part(part: &[u8], whole: &[u8]) -> bool {
    part.is_empty() || whole.as_ptr_range().contains(&part.as_ptr()) && part.len() <= whole.len()
}

fn parse(body: &[u8]) {
    assert!(Authentication::parse(body).is_none() || body.len() >= 4);
    let (code, message) = error(body);
    assert!(is_part(code, body) && is_part(message, body));
    for (first, second) in [parameter(body), two_columns(body)].into_iter().flatten() {
        assert!(is_part(first, body) && is_part(second, body));
    }
    has_mechanism(body, "SCRAM-SHA-256");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    parse(bytes);
    let whole = messages(std::iter::once(bytes));
    for (_, body) in &whole.0 {
        assert!(body.len() < MESSAGE_MAX_BYTES);
        parse(body);
    }
    let size = usize::from(*size).max(1);
    assert_eq!(messages(bytes.chunks(size)), whole);
    let written = password(bytes);
    if bytes.len() <= MESSAGE_MAX_BYTES - 4 {
        let read = messages(written.chunks(size));
        assert_eq!(read, (vec![(b'p', bytes.to_vec())], true));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        // Whatever a name holds, the message ends where its length says.
        let startup = startup(text, text);
        let length = u32::from_be_bytes(*startup.first_chunk().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), startup.len());
        sasl_initial(text, bytes);
    }
});
