//! What the check makes of what a PostgreSQL server says, message by message.

use super::super::talks::{any_split, said};
use super::*;

const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
const STANDBY_ON: &[u8] = b"S\0\0\0\x16in_hot_standby\0on\0";
const STANDBY_OFF: &[u8] = b"S\0\0\0\x17in_hot_standby\0off\0";
const READ_ONLY: &[u8] = b"S\0\0\0\x25default_transaction_read_only\0on\0";
const RECOVERING: &[u8] = b"D\0\0\0\x11\0\x02\0\0\0\x01t\0\0\0\x02on";
const STARTING: &[u8] = b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting up\0\0";

fn postgres(role: PostgresRole, password: Option<&str>) -> Postgres {
    let check = PostgresCheck {
        user: "check".to_owned(),
        database: None,
        role,
        password_file: None,
    };
    Postgres::new(&check, password.map(Password::from).as_ref())
}

#[test]
fn sessions_begin_or_the_reason_says_why_not() {
    let startup_only: &[(&[&[u8]], &str)] = &[
        (&[OK, READY], "+ postgres: a session begins"),
        (&[CLEARTEXT], "+ postgres: asks for a password"),
        (&[SASL], "+ postgres: asks for a password"),
        (&[STARTING], "- postgres: 57P03: starting up"),
        (&[OK, STARTING], "- postgres: 57P03: starting up"),
        (&[READY], "- postgres: a session that nobody has begun"),
        (
            &[b"HTTP/1.1 400\r\n"],
            "- postgres: not a PostgreSQL message",
        ),
        (&[b"R\0\0\0\x05\0"], "- postgres: not a PostgreSQL message"),
        (&[b"W\0\0\0\x04"], "- postgres: not a PostgreSQL message"),
        (
            &[OK, b"Z\0\0"],
            "- connection closed without the expected answer",
        ),
    ];
    let mut any = postgres(PostgresRole::Any, None);
    for (pieces, expected) in startup_only {
        assert_eq!(said(&mut any, pieces), *expected);
    }
}

#[test]
fn roles_are_told_at_the_start_or_asked_for() {
    let (primary, replica) = (PostgresRole::Primary, PostgresRole::Replica);
    for (role, pieces, expected) in [
        (primary, vec![OK, STANDBY_OFF, READY], "+ postgres: primary"),
        (
            primary,
            vec![OK, STANDBY_ON, READY],
            "- postgres: replica, not the primary",
        ),
        (
            primary,
            vec![OK, STANDBY_OFF, READ_ONLY, READY],
            "- postgres: primary that is set to read only",
        ),
        (replica, vec![OK, STANDBY_ON, READY], "+ postgres: replica"),
        (
            replica,
            vec![OK, STANDBY_OFF, READY],
            "- postgres: primary, not a replica",
        ),
        (
            replica,
            vec![OK, READY, RECOVERING, READY],
            "+ postgres: replica",
        ),
        (
            primary,
            vec![OK, READY, RECOVERING, READY],
            "- postgres: replica, not the primary",
        ),
        (
            replica,
            vec![OK, READY, READY],
            "- postgres: no answer about its role",
        ),
        (
            replica,
            vec![CLEARTEXT],
            "- postgres: asks for a password before it tells its role",
        ),
    ] {
        assert_eq!(said(&mut postgres(role, None), &pieces), expected);
    }
}

#[test]
fn passwords_are_sent_as_they_are_asked_for() {
    let mut talk = postgres(PostgresRole::Any, Some("secret"));
    let mut answer_to = |asked: &[u8]| {
        talk.restart();
        let startup = talk.request.rest().len();
        talk.request.count_sent(startup);
        assert_eq!(talk.receive(asked), None);
        talk.request.rest().to_vec()
    };
    assert_eq!(answer_to(CLEARTEXT), b"p\0\0\0\x0bsecret\0");
    // As Python's hashlib computes it.
    let md5 = b"p\0\0\0\x28md52feac0f59361f1dd61985ddb89c11074\0";
    assert_eq!(answer_to(b"R\0\0\0\x0c\0\0\0\x05salt"), md5);
    let first = answer_to(SASL);
    assert!(
        first.starts_with(b"p\0\0\0\x36SCRAM-SHA-256\0\0\0\0\x20n,,n=,r="),
        "{first:?}"
    );
    // A server that skips its own proof may be anyone.
    let answer = talk.receive(OK).unwrap();
    assert!(matches!(answer, Answer::Bad(_)), "{answer:?}");
    assert!(!format!("{talk:?}").contains("secret"), "{talk:?}");
}

#[test]
fn unknown_ways_to_log_in_are_told() {
    let mut talk = postgres(PostgresRole::Any, Some("secret"));
    let unknown = "- postgres: asks to be logged in to in a way that is not known here";
    assert_eq!(said(&mut talk, &[b"R\0\0\0\x08\0\0\0\x07"]), unknown);
    let unreadable = "- postgres: the server's SCRAM message cannot be read";
    assert_eq!(said(&mut talk, &[b"R\0\0\0\x0a\0\0\0\x0br="]), unreadable);
    let unproved = "- postgres: the server does not know the password itself";
    assert_eq!(said(&mut talk, &[b"R\0\0\0\x0e\0\0\0\x0cv=AAAA"]), unproved);
}

#[test]
fn a_session_that_has_begun_is_ended_in_order() {
    let mut talk = postgres(PostgresRole::Any, None);
    said(&mut talk, &[CLEARTEXT]);
    assert_eq!(talk.farewell(), b"");
    said(&mut talk, &[OK]);
    assert_eq!(talk.farewell(), wire::TERMINATE);
}

#[test]
fn pieces_and_nonsense_change_nothing() {
    let answers = [OK, STANDBY_OFF, READY, RECOVERING, SASL, STARTING];
    any_split(|| postgres(PostgresRole::Replica, None), &answers);
    any_split(|| postgres(PostgresRole::Any, Some("p")), &answers);
}

#[test]
fn a_server_that_asks_again_and_again_is_answered_a_few_times() {
    let mut postgres = postgres(PostgresRole::Any, Some("secret"));
    let flood = CLEARTEXT.repeat(5000);
    assert_eq!(
        said(&mut postgres, &[&flood]),
        "- postgres: asks for more than a login takes"
    );
    assert!(postgres.request().rest().len() < 500);
}
