//! Messages over real socketpairs: whole ones however they are cut, and every way to be wrong.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::thread;

use proptest::prelude::*;

use super::*;

/// Never reached by what works.
const LONG: Duration = Duration::from_secs(30);
/// Of what nobody answers.
const SOON: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    #[serde(default)]
    text: String,
}

impl Message for Note {
    const KIND: u16 = 700;
}

fn note(text: impl Into<String>) -> Note {
    Note { text: text.into() }
}

/// A socket to write anything to, and what reads from it.
fn wire(timeout: Duration) -> (UnixStream, Receiver) {
    let (near, far) = UnixStream::pair().unwrap();
    (near, channel(far, timeout).unwrap().1)
}

fn bytes(header: Header, payload: &[u8]) -> Vec<u8> {
    [&header.to_bytes()[..], payload].concat()
}

/// A whole note as bytes, which says that it has so many descriptors.
fn note_bytes(text: &str, descriptors: usize) -> Vec<u8> {
    let payload = serde_json::to_vec(&note(text)).unwrap();
    let header = Header {
        length: payload.len(),
        descriptors,
        kind: Note::KIND,
    };
    bytes(header, &payload)
}

/// What comes of bytes that are all there is.
fn outcome(written: &[u8], descriptors: usize) -> Result<Note, FrameError> {
    let (near, mut receiver) = wire(LONG);
    let attached = vec![near.as_fd(); descriptors];
    assert_eq!(
        ancillary::send(&near, written, &attached).unwrap(),
        written.len()
    );
    near.shutdown(Shutdown::Write).unwrap();
    receiver.expect::<Note>().map(|(note, _)| note)
}

#[test]
fn what_is_sent_is_received_with_its_descriptors() {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut sender, _) = channel(near.try_clone().unwrap(), LONG).unwrap();
    let (_, mut receiver) = channel(far, LONG).unwrap();
    sender.send(&Hello::ours(), &[]).unwrap();
    sender
        .send(&note("many"), &[near.as_fd(); DESCRIPTORS_MAX])
        .unwrap();
    let (hello, none) = receiver.expect::<Hello>().unwrap();
    hello.check().unwrap();
    assert_eq!((hello, none.len()), (Hello::ours(), 0));
    let (many, descriptors) = receiver.expect::<Note>().unwrap();
    assert_eq!((many, descriptors.len()), (note("many"), DESCRIPTORS_MAX));
    drop((sender, near, descriptors));
    assert!(matches!(receiver.receive(), Err(FrameError::Closed)));
}

#[test]
fn a_message_larger_than_the_socket_s_buffer_goes_through_and_one_beyond_the_limit_does_not() {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut sender, _) = channel(near, LONG).unwrap();
    let (_, mut receiver) = channel(far, LONG).unwrap();
    // `{"text":""}` is around it.
    let largest = note("x".repeat(PAYLOAD_MAX - 11));
    let beyond = note("x".repeat(PAYLOAD_MAX - 10));
    let reader = thread::spawn(move || receiver.expect::<Note>().unwrap().0);
    let error = sender.send(&beyond, &[]).unwrap_err();
    assert!(matches!(error, FrameError::TooLong(_)), "{error}");
    let stdin = io::stdin();
    let many = [stdin.as_fd(); DESCRIPTORS_MAX + 1];
    let error = sender.send(&note("many"), &many).unwrap_err();
    assert!(matches!(error, FrameError::TooMany(241)), "{error}");
    // Of neither was anything sent.
    sender.send(&largest, &[]).unwrap();
    assert!(reader.join().unwrap() == largest);
}

#[test]
fn a_stream_that_ends_early_is_told_from_one_that_ends() {
    let whole = note_bytes("whole", 0);
    assert!(matches!(outcome(&[], 0), Err(FrameError::Closed)));
    for cut in 1..whole.len() {
        let error = outcome(&whole[..cut], 0).unwrap_err();
        assert!(matches!(error, FrameError::Short), "at {cut}: {error}");
    }
    assert_eq!(outcome(&whole, 0).unwrap(), note("whole"));
}

#[test]
fn descriptors_are_as_many_as_announced_and_come_with_the_first_byte() {
    for (announced, sent) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
        let error = outcome(&note_bytes("x", announced), sent).unwrap_err();
        assert!(
            matches!(error, FrameError::Count { announced: a, came } if (a, came) == (announced, sent)),
            "{error}"
        );
    }
    let (near, mut receiver) = wire(LONG);
    let late = note_bytes("x", 1);
    ancillary::send(&near, &late[..HEADER_BYTES], &[near.as_fd()]).unwrap();
    ancillary::send(&near, &late[HEADER_BYTES..], &[near.as_fd()]).unwrap();
    let error = receiver.receive().unwrap_err();
    assert!(
        matches!(error, FrameError::Count { came: 2, .. }),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_said_in_words() {
    let header = |length, descriptors, kind| Header {
        length,
        descriptors,
        kind,
    };
    let long = bytes(header(PAYLOAD_MAX + 1, 0, 700), b"");
    let many = bytes(header(2, 241, 700), b"{}");
    let other = bytes(header(2, 0, 9), b"{}");
    let json = bytes(header(12, 0, 700), b"{\"text\": 17}");
    let cases = [
        (
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            "a message of 542393671 bytes: 4194304 are the most",
        ),
        (&long, "a message of 4194305 bytes: 4194304 are the most"),
        (&many, "a message with 241 descriptors: 240 are the most"),
        (&other, "message 9 came, where 700 is due"),
        (
            &json,
            "message 700: invalid type: integer `17`, expected a string at line 1 column 11",
        ),
    ];
    for (written, words) in cases {
        assert_eq!(outcome(written, 0).unwrap_err().to_string(), words);
    }
}

#[test]
fn fields_that_are_new_or_missing_do_no_harm() {
    let read = |payload: &[u8]| {
        let header = Header {
            length: payload.len(),
            descriptors: 0,
            kind: Note::KIND,
        };
        outcome(&bytes(header, payload), 0).unwrap()
    };
    assert_eq!(read(b"{}"), note(""));
    assert_eq!(read(b"{\"text\":\"a\",\"later\":[1]}"), note("a"));
}

#[test]
fn who_is_silent_or_takes_nothing_is_not_waited_for() {
    let (mut near, mut receiver) = wire(SOON);
    assert!(matches!(
        receiver.receive(),
        Err(FrameError::TimedOut(SOON))
    ));
    near.write_all(&[1]).unwrap();
    assert!(matches!(
        receiver.receive(),
        Err(FrameError::TimedOut(SOON))
    ));
    let (near, _far) = UnixStream::pair().unwrap();
    let (mut sender, _) = channel(near, SOON).unwrap();
    let large = note("x".repeat(PAYLOAD_MAX / 2));
    let error = sender.send(&large, &[]).unwrap_err();
    assert!(matches!(error, FrameError::TimedOut(_)), "{error}");
}

#[test]
fn who_drips_is_not_waited_for_either() {
    let (near, mut receiver) = wire(SOON);
    let dripping = thread::spawn(move || {
        // Of a message without end; stopped by who has heard enough.
        let header = Header {
            length: PAYLOAD_MAX,
            descriptors: 0,
            kind: Note::KIND,
        };
        let mut bytes = header.to_bytes().into_iter().chain(std::iter::repeat(b' '));
        while (&near).write_all(&[bytes.next().unwrap()]).is_ok() {
            thread::yield_now();
        }
    });
    let error = receiver.receive().unwrap_err();
    assert!(matches!(error, FrameError::TimedOut(_)), "{error}");
    drop(receiver);
    dripping.join().unwrap();
}

#[test]
fn hellos_of_other_ages_and_of_strangers() {
    let spoken = |version, oldest_reader| Hello {
        version,
        oldest_reader,
        ..Hello::ours()
    };
    spoken(VERSION + 1, VERSION).check().unwrap();
    let newer = spoken(VERSION + 7, VERSION + 1).check().unwrap_err();
    assert!(newer.to_string().contains("speaks version 8"), "{newer}");
    spoken(OLDEST_READ - 1, 0).check().unwrap_err();
    let stranger: Hello = serde_json::from_str("{\"version\":1}").unwrap();
    assert!(matches!(stranger.check(), Err(FrameError::Stranger)));
    // As the first version says it, which every later one must read.
    let first = r#"{"magic":"evenkeel handover","version":1,"oldest_reader":1,"program":"0.1.0"}"#;
    let first: Hello = serde_json::from_str(first).unwrap();
    first.check().unwrap();
}

/// Notes, each with so many descriptors, in pieces of that size.
fn write_in_pieces(near: &UnixStream, messages: &[(String, usize, usize)]) {
    for (text, descriptors, size) in messages {
        let mut attached = vec![near.as_fd(); *descriptors];
        for piece in note_bytes(text, *descriptors).chunks(*size) {
            let sent = ancillary::send(near, piece, &attached).unwrap();
            assert_eq!(sent, piece.len());
            attached.clear();
        }
    }
}

proptest! {
    #[test]
    fn headers_come_back_as_they_went(length: u32, descriptors: u16, kind: u16) {
        let header = Header { length: length as usize, descriptors: descriptors.into(), kind };
        prop_assert_eq!(Header::of_bytes(header.to_bytes()), header);
    }

    #[test]
    fn messages_are_whole_however_they_are_cut(
        messages in prop::collection::vec((".{0,300}", 0_usize..5, 1_usize..40), 1..12),
    ) {
        let (near, mut receiver) = wire(LONG);
        // More than the socket holds: each piece costs it some hundred bytes besides its own.
        thread::scope(|scope| {
            scope.spawn(|| write_in_pieces(&near, &messages));
            for (text, descriptors, _) in &messages {
                let (came, with) = receiver.expect::<Note>().unwrap();
                prop_assert_eq!((came, with.len()), (note(text), *descriptors));
            }
            Ok(())
        })?;
    }

    #[test]
    fn bytes_at_random_end_in_an_error(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut near, mut receiver) = wire(LONG);
        near.write_all(&noise).unwrap();
        drop(near);
        // Each message takes eight bytes at least.
        let ended = (0..=noise.len() / HEADER_BYTES).any(|_| receiver.receive().is_err());
        prop_assert!(ended);
    }
}

#[test]
fn who_waits_for_a_message_takes_nothing_of_it() {
    let (mut near, mut receiver) = wire(LONG);
    assert!(!receiver.comes_within(SOON).unwrap());
    near.write_all(&note_bytes("here", 0)).unwrap();
    assert!(receiver.comes_within(LONG).unwrap());
    assert_eq!(receiver.expect::<Note>().unwrap().0, note("here"));
    drop(near);
    // The end is something to be heard as well.
    assert!(receiver.comes_within(LONG).unwrap());
    assert!(matches!(receiver.receive(), Err(FrameError::Closed)));
}
