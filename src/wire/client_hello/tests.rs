//! Hellos made by hand and one as OpenSSL sends it: every split, every way of cutting them into
//! records, and what is no hello.

use proptest::prelude::*;

use super::*;

/// Values that clients send to keep servers tolerant (RFC 8701).
const GREASE: u16 = 0x3a3a;
/// `openssl s_client -servername db.example.com -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256`
const OPENSSL: &str = "160301009a0100009603034b444ae1651ad246eac4532844cca3c501410bd01667fb4f900854785fb900be000004\
    c02f00ff0100006900000013001100000e64622e6578616d706c652e636f6d000b000403000102000a000c000a00\
    1d0017001e00190018002300000016000000170000000d002a0028040305030603080708080809080a080b080408\
    050806040105010601030303010302040205020602";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn sized16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized16(content)].concat()
}

fn entry(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind][..], &sized16(name)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &sized16(&entry(0, name)))
}

/// The message behind its four bytes of header.
fn body(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([3, 1, 2, 3]);
    body.extend(sized16(&[0x3a, 0x3a, 0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(sized16(&extensions.concat()));
    body
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], body].concat()
}

/// In records of `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1][..], &sized16(part)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    records(&message(&body(extensions)), FRAGMENT_MAX_BYTES)
}

type Outcome = Result<Option<ClientHello>, HelloError>;

/// What comes of the bytes, and that no split of them gives anything else.
fn read_split(bytes: &[u8]) -> Outcome {
    let whole = read(bytes);
    for end in 0..bytes.len() {
        match read(&bytes[..end]) {
            Ok(None) => assert!(end < PREFIX_MAX_BYTES),
            found => assert_eq!(found, whole, "after {end} bytes"),
        }
    }
    whole
}

fn named(name: &str) -> Outcome {
    Ok(Some(ClientHello {
        server_name: Some(name.to_owned()),
    }))
}

const NAMELESS: Outcome = Ok(Some(ClientHello { server_name: None }));

#[test]
fn a_real_hello_is_read() {
    let bytes = unhex(OPENSSL);
    assert_eq!(read_split(&bytes), named("db.example.com"));
    let with_more = [&bytes[..], b"\x17\x03\x03 whatever follows"].concat();
    assert_eq!(read_split(&with_more), named("db.example.com"));
}

#[test]
fn records_of_any_size_make_no_difference() {
    let message = message(&body(&[
        extension(GREASE, b""),
        extension(43, &[2, 0x3a, 0x3a]),
        sni(b"a.example.com"),
        extension(51, &[9; 1200]),
        extension(GREASE + 0x1010, b"\0"),
    ]));
    for size in [1, 2, 3, 4, 5, 7, 40, 60, 1000, message.len() - 1] {
        let bytes = records(&message, size);
        assert_eq!(read_split(&bytes), named("a.example.com"), "{size}");
    }
}

#[test]
fn names_are_made_alike_and_what_is_no_host_name_is_none() {
    let long_label = "a".repeat(63);
    let longest = format!("{long_label}.{long_label}.{long_label}.{}", "a".repeat(61));
    for (asked, name) in [
        ("Db.EXAMPLE.com", "db.example.com"),
        ("db.example.com.", "db.example.com"),
        ("localhost", "localhost"),
        ("_dns.xn--bcher-kva.example", "_dns.xn--bcher-kva.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        (&longest, &longest),
        (&format!("{longest}."), &longest),
    ] {
        assert_eq!(read_split(&hello(&[sni(asked.as_bytes())])), named(name));
    }
    let too_long = format!("{longest}a");
    for asked in [
        "",
        ".",
        "..",
        ".example.com",
        "a..b",
        "a..",
        "10.0.0.1",
        "::1",
        "*.example.com",
        "a b",
        "a\0b",
        "b\u{fc}cher.example",
        "evil\nlog=line",
        &"a".repeat(64),
        &too_long,
        &"a.".repeat(5000),
    ] {
        assert_eq!(
            read(&hello(&[sni(asked.as_bytes())])),
            NAMELESS,
            "{asked:?}"
        );
    }
    assert_eq!(read_split(&hello(&[sni(b"\xff\xfe")])), NAMELESS);
}

#[test]
fn a_hello_may_name_nothing() {
    let bare = &body(&[])[..body(&[]).len() - 2];
    assert_eq!(read_split(&records(&message(bare), 100)), NAMELESS);
    assert_eq!(read_split(&hello(&[])), NAMELESS);
    assert_eq!(
        read_split(&hello(&[extension(16, b"\0\x03\x02h2")])),
        NAMELESS
    );
    // Another kind of name than host names, alone and before one.
    let other = entry(1, b"x");
    let both = [other.clone(), entry(0, b"b.example")].concat();
    assert_eq!(
        read_split(&hello(&[extension(0, &sized16(&other))])),
        NAMELESS
    );
    assert_eq!(
        read_split(&hello(&[extension(0, &sized16(&both))])),
        named("b.example")
    );
    assert_eq!(read_split(&hello(&[extension(0, &sized16(b""))])), NAMELESS);
}

#[test]
fn what_is_not_tls_is_told_from_its_first_bytes() {
    let mut alert = hello(&[]);
    alert[0] = 21;
    let mut server_hello = hello(&[]);
    server_hello[5] = 2;
    for (bytes, refused_at) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 1),
        (b"SSH-2.0-x", 1),
        // PostgreSQL asks first, and SSL 2.0 had no records of this kind.
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 1),
        (b"\x80\x2e\x01\x03\x01", 1),
        (b"\x16\x02\x00", 2),
        (&alert, 1),
        (&server_hello, 6),
    ] {
        let refused = (0..=bytes.len()).find(|end| read(&bytes[..*end]).is_err());
        assert_eq!(refused, Some(refused_at), "{bytes:?}");
        assert_eq!(read_split(bytes), Err(HelloError::NotTls));
    }
    // Another record in the middle of the hello.
    let mut cut = records(&message(&body(&[])), 20);
    cut[25] = 23;
    assert_eq!(read_split(&cut), Err(HelloError::NotTls));
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let two = [entry(0, b"a.example"), entry(0, b"b.example")].concat();
    let whole = body(&[sni(b"a.example")]);
    // Behind version and random: session id, cipher suites, compressions, extensions.
    let changed = |at: usize, byte| {
        let mut body = whole.clone();
        body[at] = byte;
        records(&message(&body), 9000)
    };
    for bytes in [
        hello(&[extension(0, &sized16(&two))]),
        hello(&[sni(b"a.example"), sni(b"b.example")]),
        hello(&[extension(0, b"")]),
        hello(&[extension(0, b"\0")]),
        hello(&[extension(0, b"\0\x09\0\0\x01a")]),
        hello(&[extension(0, &sized16(b"\0\0\x09a"))]),
        hello(&[extension(
            0,
            &[&sized16(&entry(0, b"a"))[..], b"x"].concat(),
        )]),
        changed(34, 33),
        changed(39, 0),
        changed(39, 3),
        changed(38, 0xff),
        changed(44, 0),
        changed(44, 0xff),
        changed(46, 0xff),
        changed(47, 0),
        records(&message(&whole[..whole.len() - 1]), 9000),
        records(&message(&whole[..47]), 9000),
        records(&message(b""), 9000),
        b"\x16\x03\x01\0\0".to_vec(),
        b"\x16\x03\x01\x40\x01".to_vec(),
    ] {
        assert_eq!(read_split(&bytes), Err(HelloError::Malformed), "{bytes:?}");
    }
}

#[test]
fn a_hello_has_a_bound() {
    let fixed = body(&[extension(21, b"")]).len();
    let padded = |bytes: usize| body(&[extension(21, &vec![0; bytes - fixed])]);
    let longest = message(&padded(HELLO_MAX_BYTES));
    assert_eq!(read(&records(&longest, FRAGMENT_MAX_BYTES)), NAMELESS);
    let longer = message(&padded(HELLO_MAX_BYTES + 1));
    assert_eq!(
        read_split(&records(&longer, 100)[..20]),
        Err(HelloError::TooLong)
    );
    // 64 KiB, as a length alone.
    assert_eq!(
        read(b"\x16\x03\x01\x40\0\x01\x01\0\0"),
        Err(HelloError::TooLong)
    );
    // The bound holds with the headers of records: one for each byte is too many.
    let cut = records(&longest, 1);
    assert_eq!(read(&cut[..PREFIX_MAX_BYTES - 1]), Ok(None));
    assert_eq!(read(&cut[..PREFIX_MAX_BYTES]), Err(HelloError::TooLong));
    assert_eq!(read(&cut), Err(HelloError::TooLong));
}

proptest! {
    #[test]
    fn random_bytes_behind_a_header_are_read_alike_however_they_are_split(
        rest: Vec<u8>, size in 1..200_usize,
    ) {
        let length = u8::try_from(rest.len().min(255)).unwrap();
        let message = [&[1, 0, 0, length][..], &rest].concat();
        drop(read_split(&records(&message, size)));
    }

    #[test]
    fn a_changed_hello_is_read_alike_however_it_is_split(
        size in 1..200_usize, cut in 0..60_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let body = body(&[extension(GREASE, b""), sni(b"a.example.com"), extension(16, b"\0\x03\x02h2")]);
        let mut bytes = records(&message(&body), size);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut);
        drop(read_split(&bytes));
    }
}
