//! What the check says, and what it makes of each thing that a server may do.

use std::num::NonZeroU32;

use super::super::talks::{any_split, said};
use super::*;
use crate::config::Check;

const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

fn grpc(service: &str) -> Grpc {
    let check = GrpcCheck {
        service: service.to_owned(),
        host: None,
    };
    let health = Health {
        check: Check::Grpc(check.clone()),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(1500),
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        port: None,
        tls: None,
    };
    Grpc::new(&check, &health, &Address::local(50051))
}

fn settings() -> Vec<u8> {
    http2::frame(Kind::Settings, 0, 0, b"")
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        hpack::add_field(&mut block, name, value);
    }
    block
}

fn headers(fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    http2::frame(
        Kind::Headers,
        flags | http2::END_HEADERS,
        STREAM,
        &block(fields),
    )
}

fn data(payload: &[u8]) -> Vec<u8> {
    http2::frame(Kind::Data, 0, STREAM, payload)
}

/// The whole answer with this body.
fn answered(body: &[u8]) -> Vec<u8> {
    [settings(), headers(&HEAD, 0), data(body)].concat()
}

/// The whole answer without a body.
fn trailers_only(fields: &[(&str, &str)]) -> Vec<u8> {
    let all = [&HEAD, fields].concat();
    [settings(), headers(&all, http2::END_STREAM)].concat()
}

fn says(frames: &[Vec<u8>]) -> String {
    let sent = [vec![settings()], frames.to_vec()].concat().concat();
    said(&mut grpc(""), &[&sent])
}

#[test]
fn the_call_is_what_others_would_send() {
    let mut grpc = grpc("db");
    grpc.restart();
    let sent = grpc.request().rest();
    let mut frames = sent.strip_prefix(http2::PREFACE).unwrap();
    let mut reader = FrameReader::default();
    let first = reader.read(&mut frames).unwrap().unwrap();
    assert_eq!(
        first.payload,
        b"\0\x01\0\0\0\0\0\x02\0\0\0\0\0\x06\0\0\x40\0"
    );
    let call = reader.read(&mut frames).unwrap().unwrap();
    let text = String::from_utf8_lossy(call.payload).into_owned();
    for words in [
        "127.0.0.1:50051",
        "1500m",
        "te\x08trailers",
        ":scheme\x04http\0",
    ] {
        assert!(text.contains(words), "{text:?}");
    }
    let data = reader.read(&mut frames).unwrap().unwrap();
    assert_eq!(
        (data.flags, data.payload),
        (http2::END_STREAM, &b"\0\0\0\0\x04\x0a\x02db"[..])
    );
    assert_eq!(timeout(Duration::from_secs(1_000_000)), "99999999m");
}

#[test]
fn the_message_decides() {
    for (body, expected) in [
        (b"\0\0\0\0\x02\x08\x01".as_slice(), "+ grpc: SERVING"),
        (b"\0\0\0\0\x02\x08\x02", "- grpc: NOT_SERVING"),
        (b"\0\0\0\0\x02\x08\x03", "- grpc: SERVICE_UNKNOWN"),
        (b"\0\0\0\0\x02\x08\x00", "- grpc: UNKNOWN"),
        (b"\0\0\0\0\x02\x08\x09", "- grpc: UNKNOWN"),
        (b"\0\0\0\0\0", "- grpc: UNKNOWN"),
        (b"\0\0\0\0\x01\x08", "- grpc: an answer that cannot be read"),
        (
            b"\x01\0\0\0\x02\x08\x01",
            "- grpc: a compressed answer that nobody asked for",
        ),
        (
            b"\0\0\0\0\x02\x08",
            "- connection closed without the expected answer",
        ),
        (
            &[0, 0, 1, 0, 0].repeat(2000),
            "- grpc: answered without a health status",
        ),
    ] {
        assert_eq!(
            said(&mut grpc(""), &[&answered(body)]),
            expected,
            "{body:?}"
        );
    }
    let in_pieces = [
        headers(&HEAD, 0),
        data(b"\0\0\0"),
        data(b"\0\x02\x08"),
        data(b"\x01"),
    ];
    assert_eq!(says(&in_pieces), "+ grpc: SERVING");
}

#[test]
fn a_call_without_a_message_is_told_by_its_status() {
    for (fields, expected) in [
        (
            [("grpc-status", "12"), ("grpc-message", "No such method")],
            "- grpc: UNIMPLEMENTED: No such method",
        ),
        (
            [("grpc-status", "5"), ("grpc-message", "")],
            "- grpc: NOT_FOUND",
        ),
        (
            [("grpc-status", "99"), ("grpc-message", "\x1b")],
            "- grpc: 99: \\u{1b}",
        ),
        (
            [("grpc-status", "0"), ("grpc-message", "")],
            "- grpc: answered without a health status",
        ),
    ] {
        assert_eq!(said(&mut grpc(""), &[&trailers_only(&fields)]), expected);
    }
    let later = [
        headers(&HEAD, 0),
        headers(&[("grpc-status", "14")], http2::END_STREAM),
    ];
    assert_eq!(says(&later), "- grpc: UNAVAILABLE");
    let early = [
        headers(&[(":status", "103")], 0),
        headers(&HEAD, 0),
        data(b"\0\0\0\0\x02\x08\x01"),
    ];
    assert_eq!(says(&early), "+ grpc: SERVING");
    assert_eq!(says(&[headers(&[(":status", "404")], 0)]), "- http 404");
    let page = [(":status", "200"), ("content-type", "text/html")];
    assert_eq!(
        says(&[headers(&page, 0)]),
        "- grpc: answered with content-type text/html"
    );
}

#[test]
fn what_the_connection_says_counts() {
    let frame = http2::frame;
    let serving = [headers(&HEAD, 0), data(b"\0\0\0\0\x02\x08\x01")].concat();
    for (sent, expected) in [
        (
            frame(Kind::GoAway, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"),
            "+ grpc: SERVING",
        ),
        (
            frame(Kind::GoAway, 0, 0, b"\0\0\0\0\0\0\0\0"),
            "- grpc: GOAWAY NO_ERROR",
        ),
        (
            frame(Kind::GoAway, 0, 0, b"\0\0\0\x01\0\0\0\x0btoo_many_pings"),
            "- grpc: GOAWAY ENHANCE_YOUR_CALM: too_many_pings",
        ),
        (
            frame(Kind::GoAway, 0, 0, b"short"),
            "- grpc: a frame that is too short",
        ),
        (
            frame(Kind::RstStream, 0, 1, b"\0\0\0\x07"),
            "- grpc: RST_STREAM REFUSED_STREAM",
        ),
        (
            frame(Kind::RstStream, 0, 3, b"\0\0\0\x07"),
            "+ grpc: SERVING",
        ),
        (frame(Kind::Other, 0, 1, b"anything"), "+ grpc: SERVING"),
        (
            frame(Kind::Data, 0, 1, b"early"),
            "- grpc: data in the wrong place or padded wrongly",
        ),
        (
            frame(Kind::Headers, 8, 1, b"\x05"),
            "- grpc: a frame that is padded wrongly",
        ),
        (
            frame(Kind::Continuation, 4, 1, b""),
            "- grpc: headers without a beginning",
        ),
        (
            frame(Kind::Headers, 4, 1, b"\xff"),
            "- grpc: headers that cannot be read",
        ),
        (
            b"\x01\0\0\0\0\0\0\0\0".to_vec(),
            "- grpc: a frame that is too long",
        ),
    ] {
        assert_eq!(says(&[sent, serving.clone()]), expected);
    }
    for sent in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\0\0\0\x06\0\0\0\0\0",
        b"\0\0\0\x04\0\0\0\0\x01",
    ] {
        assert_eq!(
            said(&mut grpc(""), &[sent]),
            "- grpc: the server does not speak HTTP/2"
        );
    }
}

#[test]
fn headers_may_come_in_several_frames() {
    let block = block(&HEAD);
    let (one, two) = block.split_at(9);
    let first = http2::frame(Kind::Headers, 0, 1, one);
    let second = http2::frame(Kind::Continuation, http2::END_HEADERS, 1, two);
    let body = data(b"\0\0\0\0\x02\x08\x01");
    assert_eq!(
        says(&[first.clone(), second, body.clone()]),
        "+ grpc: SERVING"
    );
    assert_eq!(
        says(&[first.clone(), body]),
        "- grpc: headers that do not end"
    );
    let more = http2::frame(Kind::Continuation, 0, 1, &[0; http2::PAYLOAD_MAX_BYTES]);
    assert_eq!(says(&[first, more]), "- grpc: more than 16 KiB of headers");
}

#[test]
fn settings_and_pings_are_answered() {
    let mut grpc = grpc("");
    grpc.restart();
    let opening = grpc.request().rest().len();
    grpc.request_mut().count_sent(opening);
    assert_eq!(grpc.farewell(), b"");
    let ping = http2::frame(Kind::Ping, 0, 0, b"12345678");
    assert_eq!(grpc.receive(&[settings(), ping].concat()), None);
    let expected = [
        http2::frame(Kind::Settings, http2::ACK, 0, b""),
        http2::frame(Kind::Ping, http2::ACK, 0, b"12345678"),
    ];
    assert_eq!(grpc.request().rest(), expected.concat());
    let acks = [
        http2::frame(Kind::Settings, http2::ACK, 0, b""),
        http2::frame(Kind::Ping, http2::ACK, 0, b"12345678"),
    ];
    grpc.request_mut().count_sent(expected.concat().len());
    assert_eq!(grpc.receive(&acks.concat()), None);
    assert_eq!(grpc.request().rest(), b"");
    let farewell = http2::frame(Kind::GoAway, 0, 0, &[0; 8]);
    assert_eq!(grpc.farewell(), farewell);
}

#[test]
fn pieces_and_nonsense_change_nothing() {
    any_split(
        || grpc("a"),
        &[
            &answered(b"\0\0\0\0\x02\x08\x01"),
            &trailers_only(&[("grpc-status", "12")]),
            &[settings(), http2::frame(Kind::GoAway, 0, 0, &[0; 8])].concat(),
        ],
    );
}
