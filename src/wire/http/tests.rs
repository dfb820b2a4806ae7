//! Tables, every split, and a seeded fuzz of the response reader.

use proptest::prelude::*;

use super::*;

/// All that came of reading `chunks` one after another and then the end of the connection.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: Option<u16>,
    body: Vec<u8>,
    is_complete: bool,
    end: Result<(), HttpError>,
}

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut reader = ResponseReader::new();
    let mut read = Read {
        status: None,
        body: Vec::new(),
        is_complete: false,
        end: Ok(()),
    };
    for mut chunk in chunks {
        loop {
            match reader.read(&mut chunk) {
                Ok(Some(Item::Status(status))) => assert!(read.status.replace(status).is_none()),
                Ok(Some(Item::Body(data))) => {
                    assert!(!data.is_empty() && read.status.is_some() && !read.is_complete);
                    read.body.extend_from_slice(data);
                }
                Ok(Some(Item::End)) => assert!(!std::mem::replace(&mut read.is_complete, true)),
                Ok(None) => {
                    assert!(chunk.is_empty());
                    break;
                }
                Err(error) => {
                    read.end = Err(error);
                    return read;
                }
            }
            assert!(reader.head.capacity() <= 2 * HEAD_MAX_BYTES);
        }
    }
    read.end = reader.end();
    read
}

fn whole(bytes: &[u8]) -> Read {
    read([bytes])
}

/// Bytes, then the status and the body that they hold.
#[rustfmt::skip]
const GOOD: &[(&[u8], u16, &[u8])] = &[
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\ncontent-length: 5\r\n\r\nhellojunk", 200, b"hello"),
    (b"HTTP/1.0 200 OK\r\n\r\nuntil close", 200, b"until close"),
    (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 503, b""),
    (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, b"ok"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", 304, b""),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", 200, b"abc0123456789"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 99\r\n\r\n1\na\n0\nTrailer: x\n\n", 200, b"a"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", 200, b"abc"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\njunk", 101, b""),
    (b"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\nx", 999, b"x"),
];

/// Bytes, then what is wrong with them.
#[rustfmt::skip]
const BAD: &[(&[u8], HttpError)] = &[
    (b"", HttpError::Truncated),
    (b"HTT", HttpError::Truncated),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        HttpError::Truncated,
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        HttpError::Truncated,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        HttpError::Truncated,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        HttpError::Truncated,
    ),
    (b"SSH-2.0-OpenSSH_9.2\r\n", HttpError::NotHttp),
    (b"\0\0\0\0\0\0\0\0", HttpError::NotHttp),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", HttpError::NotHttp),
    (b"HTTP/2 200 OK\r\n\r\n", HttpError::NotHttp),
    (b"HTTP/1.9 200 OK\r\n\r\n", HttpError::NotHttp),
    (b"HTTP/1.1 99999 OK\r\n\r\n", HttpError::StatusLine),
    (b"HTTP/1.1 099 OK\r\n\r\n", HttpError::StatusLine),
    (b"HTTP/1.1 2x0 OK\r\n\r\n", HttpError::StatusLine),
    (b"HTTP/1.1 200 O\0K\r\n\r\n", HttpError::StatusLine),
    (b"HTTP/1.1 200 OK\r\nA\0b: c\r\n\r\n", HttpError::Header),
    (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", HttpError::Header),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        HttpError::ContentLength,
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        HttpError::ContentLength,
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HttpError::ContentLength,
    ),
    (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        HttpError::ContentLength,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        HttpError::Chunk,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        HttpError::Chunk,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
        HttpError::Chunk,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        HttpError::Chunk,
    ),
];

#[test]
fn good_answers_are_read() {
    for &(bytes, status, body) in GOOD {
        let read = whole(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(
            (read.status, &*read.body, read.end),
            (Some(status), body, Ok(())),
            "{text}"
        );
    }
}

#[test]
fn bad_answers_are_told_apart() {
    for &(bytes, error) in BAD {
        assert_eq!(
            whole(bytes).end,
            Err(error),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn the_result_does_not_depend_on_where_the_bytes_were_cut() {
    for bytes in GOOD
        .iter()
        .map(|good| good.0)
        .chain(BAD.iter().map(|bad| bad.0))
    {
        let expected = whole(bytes);
        for cut in 0..=bytes.len() {
            assert_eq!(
                read([&bytes[..cut], &bytes[cut..]]),
                expected,
                "cut at {cut}"
            );
        }
        assert_eq!(read(bytes.chunks(1)), expected, "byte by byte");
    }
}

#[test]
fn endless_heads_end() {
    let line = [b"HTTP/1.1 200 ".as_slice(), &vec![b'a'; 10_000_000]].concat();
    assert_eq!(read(line.chunks(1460)).end, Err(HttpError::HeadTooLong));
    assert_eq!(whole(&line).end, Err(HttpError::HeadTooLong));

    let many = [
        b"HTTP/1.1 200 OK\r\n".as_slice(),
        &b"a: b\r\n".repeat(100_000),
    ]
    .concat();
    assert_eq!(read(many.chunks(1460)).end, Err(HttpError::TooManyHeaders));
    assert_eq!(read(many.chunks(1)).end, Err(HttpError::TooManyHeaders));

    let interim = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
    assert_eq!(
        read(interim.chunks(1460)).end,
        Err(HttpError::TooManyInterim)
    );
}

#[test]
fn a_head_that_fills_the_limit_is_read() {
    let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: ".to_vec();
    head.resize(HEAD_MAX_BYTES - 4, b'a');
    head.extend_from_slice(b"\r\n\r\nok");
    for cut in [
        1,
        17,
        HEAD_MAX_BYTES - 1,
        HEAD_MAX_BYTES,
        HEAD_MAX_BYTES + 1,
    ] {
        assert_eq!(
            read([&head[..cut], &head[cut..]]).body,
            b"ok",
            "cut at {cut}"
        );
    }
    head.insert(HEAD_MAX_BYTES - 4, b'a');
    assert_eq!(whole(&head).end, Err(HttpError::HeadTooLong));
}

proptest! {
    #[test]
    fn noise_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0_usize..2000,
    ) {
        let cut = cut.min(noise.len());
        prop_assert_eq!(read([&noise[..cut], &noise[cut..]]), whole(&noise));
    }
}

/// A fuzzer without a fuzzer: known answers, damaged by a seed, cut by it, and read both ways.
#[test]
fn damaged_answers_never_panic_and_never_depend_on_cuts() {
    const SEED: u64 = 0x65_76_65_6e;
    const ROUNDS: usize = 40_000;
    const TOKENS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b";",
        b"0\r\n\r\n",
        b"ffffffffffffffff",
        b"chunked",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"Content-Length: 18446744073709551615\r\n",
        b"99999",
        b"Transfer-Encoding: chunked\r\n",
        b"\xff\xfe",
        b" ",
        b"-1",
    ];
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..ROUNDS {
        let from = random.usize(..GOOD.len() + BAD.len());
        let mut bytes = match GOOD.get(from) {
            Some(good) => good.0.to_vec(),
            None => BAD[from - GOOD.len()].0.to_vec(),
        };
        for _ in 0..random.usize(1..6) {
            damage(&mut bytes, &mut random, TOKENS);
        }
        let mut chunks = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.usize(1..=rest.len().min(20)));
            chunks.push(chunk);
            rest = after;
        }
        assert_eq!(read(chunks), whole(&bytes), "seed {SEED}, round {round}");
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng, tokens: &[&[u8]]) {
    let at = random.usize(..=bytes.len());
    match random.u8(..4) {
        0 if at < bytes.len() => bytes[at] = random.u8(..),
        1 => bytes.truncate(at),
        2 => {
            let end = random.usize(at..=bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let token = tokens[random.usize(..tokens.len())];
            bytes.splice(at..at, token.iter().copied());
        }
    }
}
