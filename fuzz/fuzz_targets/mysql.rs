//! MySQL's packets: the same however they are cut, payloads that are anything, and what is written
//! read again.
#![no_main]

use evenkeel::wire::mysql::{Greeting, PACKET_MAX_BYTES, PacketReader, Reply, packet, response};
use libfuzzer_sys::fuzz_target;

/// Numbers and payloads, and whether all that came may be packets.
fn packets<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<(u8, Vec<u8>)>, bool) {
    let mut reader = PacketReader::default();
    let mut packets = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.read(&mut piece) {
                Ok(Some(packet)) => packets.push((packet.number, packet.payload.to_vec())),
                Ok(None) => assert!(piece.is_empty()),
                Err(_) => return (packets, false),
            }
        }
    }
    (packets, true)
}

fn parse(payload: &[u8]) {
    if let Some(greeting) = Greeting::parse(payload) {
        assert!(greeting.plugin.len() < payload.len());
        assert!(!greeting.plugin.contains(&0));
    }
    match Reply::parse(payload) {
        Some(Reply::Error { message: text, .. } | Reply::More(text)) => {
            assert!(text.len() < payload.len());
        }
        Some(Reply::Switch { plugin, data }) => {
            assert!(plugin.len() + data.len() < payload.len() && !plugin.contains(&0));
        }
        Some(Reply::Ok) | None => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    parse(bytes);
    let whole = packets(std::iter::once(bytes));
    for (_, payload) in &whole.0 {
        assert!((1..=PACKET_MAX_BYTES).contains(&payload.len()));
        parse(payload);
    }
    let chunk = usize::from(*size).max(1);
    assert_eq!(packets(bytes.chunks(chunk)), whole);
    let written = packet(*size, bytes);
    if (1..=PACKET_MAX_BYTES).contains(&bytes.len()) {
        let read = packets(written.chunks(chunk));
        assert_eq!(read, (vec![(*size, bytes.to_vec())], true));
    }
    if let Ok(user) = std::str::from_utf8(bytes) {
        response(user, "mysql_native_password", bytes);
    }
});
