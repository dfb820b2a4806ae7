//! Tables of headers, good and bad, every split of them, and what is written read back.

use proptest::prelude::*;

use super::*;

const IPV6_LONGEST: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";

fn ip(source: &str, destination: &str) -> Origin {
    Origin::Ip {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn v2(command: u8, family: u8, stated: u16, rest: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&stated.to_be_bytes());
    header.extend_from_slice(rest);
    header
}

/// 1.2.3.4:256 to 5.6.7.8:443, then `tail`.
fn tcp4(tail: &[u8]) -> Vec<u8> {
    let addresses = [1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 1, 0xbb];
    let rest = [&addresses[..], tail].concat();
    v2(0x21, 0x11, u16::try_from(rest.len()).unwrap(), &rest)
}

/// What comes of the bytes, and that no split of them gives anything else.
fn read_split(bytes: &[u8]) -> Result<Option<(Origin, usize)>, HeaderError> {
    let whole = read(bytes);
    for end in 0..bytes.len() {
        match read(&bytes[..end]) {
            Ok(None) => assert!(end < HEADER_MAX_BYTES),
            found => assert_eq!(found, whole, "after {end} bytes"),
        }
    }
    whole
}

#[test]
fn lines_are_read_whatever_follows() {
    let longest = format!("PROXY UNKNOWN {IPV6_LONGEST} {IPV6_LONGEST} 65535 65535\r\n");
    assert_eq!(longest.len(), V1_MAX_BYTES);
    for (line, expected) in [
        (
            "PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n",
            ip("1.2.3.4:0", "5.6.7.8:65535"),
        ),
        (
            "PROXY TCP6 2001:db8::1 ::1 9 10\r\n",
            ip("[2001:db8::1]:9", "[::1]:10"),
        ),
        (
            "PROXY TCP6 ::ffff:1.2.3.4 ::ffff:506:708 1 2\r\n",
            ip("1.2.3.4:1", "5.6.7.8:2"),
        ),
        ("PROXY UNKNOWN\r\n", Origin::Unnamed),
        ("PROXY UNKNOWN any\tthing \n at all\r\n", Origin::Unnamed),
        (&longest, Origin::Unnamed),
    ] {
        for tail in ["", "\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let bytes = format!("{line}{tail}");
            let whole = read_split(bytes.as_bytes());
            assert_eq!(whole, Ok(Some((expected, line.len()))), "{bytes:?}");
        }
    }
}

#[test]
fn lines_that_are_not_as_they_must_be_are_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 [::1] [::1] 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 \u{661}.2.3.4 5.6.7.8 1 2\r\n",
    ] {
        assert_eq!(
            read_split(line.as_bytes()),
            Err(HeaderError::Line),
            "{line:?}"
        );
    }
}

#[test]
fn what_begins_in_another_way_is_refused_with_the_first_byte_that_says_so() {
    for (bytes, refused_at) in [
        (&b"GET / HTTP/1.1"[..], 1),
        (b"\x16\x03\x01", 1),
        (b"proxy ", 1),
        (b"PROXY\r\n", 6),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
        (b"\r\n\r\n\0\r\nQuit\n", 9),
    ] {
        let refused = (0..=bytes.len()).find(|end| read(&bytes[..*end]).is_err());
        assert_eq!(refused, Some(refused_at), "{bytes:?}");
        assert_eq!(read_split(bytes), Err(HeaderError::NotProxy));
    }
}

#[test]
fn a_line_without_an_end_is_refused_at_the_bound() {
    let mut line = b"PROXY UNKNOWN ".to_vec();
    line.resize(V1_MAX_BYTES - 1, b'x');
    assert_eq!(read_split(&line), Ok(None));
    // The CR is within the bound, its LF is not.
    line.push(b'\r');
    assert_eq!(read_split(&line), Err(HeaderError::TooLong));
    line.push(b'\n');
    assert_eq!(read_split(&line), Err(HeaderError::TooLong));
}

#[test]
fn binary_headers_are_read_and_what_follows_the_addresses_is_passed_over() {
    let mut tcp6 = [0; 36];
    (tcp6[15], tcp6[31], tcp6[33], tcp6[35]) = (1, 2, 80, 81);
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 1, 2, 3, 4]);
    mapped[26..32].copy_from_slice(&[0xff, 0xff, 5, 6, 7, 8]);
    let named = ip("1.2.3.4:256", "5.6.7.8:443");
    let cases = [
        (tcp4(b""), named),
        // A TLV, one whose length goes beyond the header's end, and bytes that are none.
        (tcp4(&[4, 0, 1, 0xff]), named),
        (tcp4(&[4, 0xff, 0xff, 1]), named),
        (tcp4(&[0xff]), named),
        (tcp4(&[0; HEADER_MAX_BYTES - 16 - 12]), named),
        (v2(0x21, 0x21, 36, &tcp6), ip("[::1]:80", "[::2]:81")),
        (v2(0x21, 0x21, 36, &mapped), ip("1.2.3.4:0", "5.6.7.8:0")),
        (v2(0x21, 0x31, 216, &[b'x'; 216]), Origin::Unix),
        (v2(0x21, 0x31, 216, &[0xff; 216]), Origin::Unix),
        (v2(0x21, 0x00, 0, b""), Origin::Unnamed),
        (v2(0x21, 0x00, 3, b"xyz"), Origin::Unnamed),
        (v2(0x20, 0x00, 0, b""), Origin::Unnamed),
        (v2(0x20, 0x00, 5, b"abcde"), Origin::Unnamed),
        // LOCAL: neither family nor addresses count.
        (v2(0x20, 0x11, 0, b""), Origin::Unnamed),
        (v2(0x20, 0x11, 12, &[9; 12]), Origin::Unnamed),
        (v2(0x20, 0xff, 1, b"x"), Origin::Unnamed),
    ];
    for (header, expected) in cases {
        assert_eq!(read_split(&header), Ok(Some((expected, header.len()))));
        let with_payload = [&header[..], b"PROXY UNKNOWN\r\n"].concat();
        assert_eq!(
            read_split(&with_payload),
            Ok(Some((expected, header.len())))
        );
    }
}

#[test]
fn binary_headers_that_are_wrong_are_refused_before_what_they_promise_has_come() {
    let room = u16::try_from(HEADER_MAX_BYTES).unwrap();
    for (command, family, stated, expected) in [
        (0x22, 0x11, 12, HeaderError::Command),
        (0x11, 0x11, 12, HeaderError::Command),
        (0x31, 0x11, 12, HeaderError::Command),
        (0x00, 0x11, 12, HeaderError::Command),
        (0x21, 0x11, 11, HeaderError::Short),
        (0x21, 0x11, 0, HeaderError::Short),
        (0x21, 0x21, 35, HeaderError::Short),
        (0x21, 0x21, 12, HeaderError::Short),
        (0x21, 0x31, 215, HeaderError::Short),
        (0x21, 0x12, 12, HeaderError::Family),
        (0x21, 0x22, 36, HeaderError::Family),
        (0x21, 0x32, 216, HeaderError::Family),
        (0x21, 0x10, 12, HeaderError::Family),
        (0x21, 0x01, 12, HeaderError::Family),
        (0x21, 0x41, 12, HeaderError::Family),
        (0x21, 0x11, room - 15, HeaderError::TooLong),
        (0x20, 0x00, u16::MAX, HeaderError::TooLong),
    ] {
        let header = v2(command, family, stated, b"");
        assert_eq!(read_split(&header), Err(expected), "{header:?}");
    }
}

#[test]
fn what_is_written_is_what_the_specification_shows() {
    let v1 = |origin| String::from_utf8(write(origin, Version::V1)).unwrap();
    let named = ip("1.2.3.4:256", "5.6.7.8:443");
    assert_eq!(v1(named), "PROXY TCP4 1.2.3.4 5.6.7.8 256 443\r\n");
    assert_eq!(write(named, Version::V2), tcp4(b""));
    let mixed = ip("[2001:db8::1]:1", "5.6.7.8:2");
    assert_eq!(v1(mixed), "PROXY TCP6 2001:db8::1 ::ffff:5.6.7.8 1 2\r\n");
    let longest = format!("[{IPV6_LONGEST}]:65535");
    assert!(v1(ip(&longest, &longest)).len() <= V1_MAX_BYTES);
    for origin in [Origin::Unnamed, Origin::Unix] {
        assert_eq!(v1(origin), "PROXY UNKNOWN\r\n");
        assert_eq!(write(origin, Version::V2), v2(0x20, 0, 0, b""));
    }
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        source: SocketAddr, destination: SocketAddr, version in versions(), tail: Vec<u8>,
    ) {
        let header = write(Origin::Ip { source, destination }, version);
        let bytes = [&header[..], &tail].concat();
        let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let expected = Origin::Ip { source: plain(source), destination: plain(destination) };
        prop_assert_eq!(read_split(&bytes), Ok(Some((expected, header.len()))));
    }

    #[test]
    fn random_bytes_behind_a_signature_are_read_alike_however_they_are_split(
        is_v2: bool, command in 0x1f..0x23_u8, family: u8, rest: Vec<u8>,
    ) {
        let head = if is_v2 {
            [V2_SIGNATURE, &[command, family, 0]].concat()
        } else {
            V1_SIGNATURE.to_vec()
        };
        let bytes = [&head[..], &rest].concat();
        if let Ok(Some((_, length))) = read_split(&bytes) {
            prop_assert!(length <= bytes.len() && length <= HEADER_MAX_BYTES);
        }
    }

    #[test]
    fn a_changed_header_is_read_alike_however_it_is_split(
        source: SocketAddr, destination: SocketAddr, version in versions(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = write(Origin::Ip { source, destination }, version);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert!(read_split(&bytes) != Ok(Some((Origin::Unnamed, 0))));
    }
}
