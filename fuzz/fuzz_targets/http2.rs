//! What a gRPC health check reads: frames, however they come in pieces, and headers and messages in
//! them.
#![no_main]

use evenkeel::wire::http2::{FrameReader, Kind, NotAFrame, PAYLOAD_MAX_BYTES};
use evenkeel::wire::{hpack, protobuf};
use libfuzzer_sys::fuzz_target;

type Read = (Vec<(Kind, u8, u32, Vec<u8>)>, Option<NotAFrame>);

fn read_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = FrameReader::default();
    let mut frames = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.read(&mut piece) {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= PAYLOAD_MAX_BYTES);
                    if let Some(content) = frame.content() {
                        look_into(content);
                    }
                    frames.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec()));
                }
                Ok(None) => assert!(piece.is_empty()),
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn look_into(content: &[u8]) {
    let mut bytes = 0;
    let headers = hpack::fields(content, |name, value| bytes += name.len() + value.len());
    // Two bytes may stand for a name of the table; a code of five bits for a letter.
    assert!(bytes <= content.len() * 16, "{headers:?}");
    if let Ok(Some(_)) = protobuf::last_number(content, 1) {
        assert!(content.len() >= 2);
    }
}

fuzz_target!(|bytes: &[u8]| {
    look_into(bytes);
    let Some((size, rest)) = bytes.split_first() else {
        return;
    };
    let whole = read_all(std::iter::once(rest));
    assert_eq!(read_all(rest.chunks(usize::from(*size).max(1))), whole);
});
