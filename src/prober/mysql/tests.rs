//! What the check makes of what a MySQL server says, packet by packet.

use super::super::talks::{any_split, said};
use super::*;
use crate::wire::mysql::tests::greeting;

fn mysql(password: Option<&str>) -> Mysql {
    let check = MysqlCheck {
        user: "check".to_owned(),
        password_file: None,
    };
    Mysql::new(&check, password.map(Password::from).as_ref())
}

fn greets(plugin: &str) -> Vec<u8> {
    wire::packet(0, &greeting(plugin))
}

fn replies(payload: &[u8]) -> Vec<u8> {
    wire::packet(2, payload)
}

const DENIED: &[u8] = b"\xff\x15\x04#28000Access denied";

#[test]
fn a_server_that_judges_users_is_well() {
    let hello = greets(NATIVE);
    for (payload, expected) in [
        (b"\0\0\0\x02\0\0\0".as_slice(), "+ mysql: a session begins"),
        (DENIED, "+ mysql: answers, and does not let check in"),
        (
            b"\xff\xa2\x06#28000Access denied",
            "+ mysql: answers, and does not let check in",
        ),
        (
            b"\xff\x10\x04#08004Too many connections",
            "- mysql: 1040: Too many connections",
        ),
        (b"\x42", "- mysql: not a MySQL packet"),
    ] {
        let answer = said(&mut mysql(None), &[&hello, &replies(payload)]);
        assert_eq!(answer, expected);
    }
}

#[test]
fn what_comes_instead_of_a_greeting_is_told() {
    for (sent, expected) in [
        (
            wire::packet(0, b"\xff\x69\x04Host 'x' is blocked"),
            "- mysql: 1129: Host 'x' is blocked",
        ),
        (
            wire::packet(0, b"\x09old"),
            "- mysql: not a greeting of MySQL",
        ),
        (b"HTTP/1.1 400".to_vec(), "- mysql: not a MySQL packet"),
        (b"\0\0\0\0".to_vec(), "- mysql: not a MySQL packet"),
        (
            Vec::new(),
            "- connection closed without the expected answer",
        ),
    ] {
        assert_eq!(said(&mut mysql(None), &[&sent]), expected, "{sent:?}");
    }
}

/// What the talk answers to the last of `pieces`, which decides nothing.
fn answer_to(talk: &mut Mysql, pieces: &[&[u8]]) -> Vec<u8> {
    talk.restart();
    for piece in pieces {
        let sent = talk.request.rest().len();
        talk.request.count_sent(sent);
        assert_eq!(talk.receive(piece), None);
    }
    talk.request.rest().to_vec()
}

#[test]
fn passwords_are_proved_and_never_sent() {
    let mut talk = mysql(Some("secret"));
    // As Python's hashlib computes both from the challenge "abcdefghijklmnopqrst".
    let native =
        b"\x88\x17\xc5\x0f\xa7\x79\xda\xef\x01\x0e\xe7\x57\x78\x25\xb0\x84\x7d\xf9\x84\x2e";
    let sha2 = b"\xc7\x6e\x28\x98\x61\x2a\x4c\xf0\x42\xc7\x7f\xa8\xc4\x70\x2c\x4c\x64\xc0\xc2\xc5\x57\xc5\x3c\x4d\x75\x59\x5a\xaa\x6a\xba\xe8\x09";
    let answer = answer_to(&mut talk, &[&greets(NATIVE)]);
    assert!(contains(&answer, native), "{answer:x?}");
    let answer = answer_to(&mut talk, &[&greets(CACHING_SHA2)]);
    assert!(contains(&answer, sha2), "{answer:x?}");
    let switch = replies(b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0");
    let answer = answer_to(&mut talk, &[&greets("client_ed25519"), &switch]);
    assert_eq!(answer, wire::packet(3, sha2));
    assert!(!format!("{talk:?}").contains("secret"), "{talk:?}");
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|part| part == wanted)
}

#[test]
fn a_wrong_password_is_bad_and_what_needs_tls_is_good() {
    let hello = greets(CACHING_SHA2);
    let mut talk = mysql(Some("secret"));
    let mut answer = |payloads: &[&[u8]]| {
        let rest: Vec<_> = payloads.iter().map(|payload| replies(payload)).collect();
        said(&mut talk, &[&hello, &rest.concat()])
    };
    assert_eq!(answer(&[DENIED]), "- mysql: 1045: Access denied");
    assert_eq!(answer(&[b"\x01\x03", b"\0\0"]), "+ mysql: a session begins");
    let full = "+ mysql: asks for full authentication, which needs TLS";
    assert_eq!(answer(&[b"\x01\x04", DENIED]), full);
    let unknown = "- mysql: asks to be logged in to in a way that is not known here";
    assert_eq!(answer(&[b"\xfemysql_clear_password\0", DENIED]), unknown);
    let endless: &[&[u8]] = &[b"\x01x".as_slice(); 20];
    assert_eq!(answer(endless), "- mysql: its handshake does not end");
}

#[test]
fn a_way_to_log_in_that_is_not_known_is_answered_by_nothing() {
    let switch = replies(b"\xfemysql_clear_password\0");
    let answer = answer_to(&mut mysql(Some("secret")), &[&greets(NATIVE), &switch]);
    assert_eq!(answer, wire::packet(3, b""));
}

#[test]
fn a_session_that_has_begun_is_ended_in_order() {
    let mut talk = mysql(None);
    said(&mut talk, &[&greets(NATIVE), &replies(DENIED)]);
    assert_eq!(talk.farewell(), b"");
    said(&mut talk, &[&greets(NATIVE), &replies(b"\0\0")]);
    assert_eq!(talk.farewell(), wire::QUIT);
}

#[test]
fn pieces_and_nonsense_change_nothing() {
    let (hello, denied) = (greets(NATIVE), replies(DENIED));
    let more = replies(b"\x01\x04");
    any_split(|| mysql(None), &[&hello, &denied, b"\x01\0\0\x02\xfe"]);
    any_split(|| mysql(Some("p")), &[&hello, &more, &denied]);
}
