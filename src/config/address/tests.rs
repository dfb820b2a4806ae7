//! Texts that are addresses, and what is said of those that are none.

use super::*;
use crate::config::mistake::{Mistakes, Place};
use crate::config::tree::Path;

fn wording(wrong: Wrong) -> String {
    let mut mistakes = Mistakes::new("x");
    mistakes.add(Place::Argument("--x"), &Path::Root, wrong);
    mistakes.to_string()["--x: ".len()..].to_owned()
}

const FILE: Place = Place::START;

fn server(text: &str) -> Result<Address, Wrong> {
    super::server(text, FILE)
}

fn bind(text: &str) -> Result<Bind, Wrong> {
    super::bind(text, FILE)
}

#[test]
fn addresses_are_read() {
    for text in [
        "10.0.0.1:80",
        "127.0.0.1:65535",
        "[::1]:80",
        "[fe80::1%2]:80",
    ] {
        assert_eq!(bound(text), [text]);
        assert_eq!(server(text).unwrap().to_string(), text);
    }
    assert_eq!(bound("0.0.0.0:0"), ["0.0.0.0:0"]);
}

/// Each address that the text stands for.
fn bound(text: &str) -> Vec<String> {
    let bind = bind(text).unwrap();
    let addresses: Vec<_> = bind.addresses().map(|one| one.to_string()).collect();
    assert_eq!(addresses.len(), bind.count());
    addresses
}

#[test]
fn one_text_can_stand_for_many_addresses() {
    assert_eq!(
        bound("1.2.3.4:7000-7002"),
        ["1.2.3.4:7000", "1.2.3.4:7001", "1.2.3.4:7002"]
    );
    assert_eq!(bound("[::1]:9-9"), ["[::1]:9"]);
    assert_eq!(bound("*:80"), ["0.0.0.0:80", "[::]:80"]);
    assert_eq!(bound("*:0"), ["0.0.0.0:0", "[::]:0"]);
    assert_eq!(
        bound("*:80-81"),
        ["0.0.0.0:80", "0.0.0.0:81", "[::]:80", "[::]:81"]
    );
    assert_eq!(bind("*:1-65535").unwrap().count(), 2 * 65_535);
}

#[test]
fn unix_sockets_are_written_with_a_word_before_them() {
    for (text, shown) in [
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:@web", "unix:@web"),
        ("unix:///run/./x", "unix:/run/x"),
    ] {
        assert_eq!(bound(text), [shown]);
        assert_eq!(server(text).unwrap().to_string(), shown);
    }
    let longest = format!("unix:/{}", "x".repeat(106));
    assert_eq!(bound(&longest), [&*longest]);
    for (text, expected) in [
        (
            "/run/x",
            "`/run/x` has no unix: before it, write unix:/run/x",
        ),
        ("@web", "`@web` has no unix: before it, write unix:@web"),
        (
            "unix:x",
            "`unix:x` has no absolute path, write one such as unix:/run/web.sock, or unix:@web for one without a file",
        ),
        (
            "unix:@",
            "`unix:@` has no name behind the @, write one such as unix:/run/web.sock, or unix:@web for one without a file",
        ),
        (
            "unix:/run/",
            "`unix:/run/` is a directory, write one such as unix:/run/web.sock, or unix:@web for one without a file",
        ),
        (
            "unix:/a/../b",
            "`unix:/a/../b` has .. in its path, write the path without",
        ),
        (
            "unix:/a b",
            "`unix:/a b` has ` ` in it, write printable ASCII without blanks",
        ),
        (
            "unix:@a\0",
            r"`unix:@a\0` has `\0` in it, write printable ASCII without blanks",
        ),
    ] {
        assert_eq!(wording(bind(text).unwrap_err()), expected);
        assert_eq!(wording(server(text).unwrap_err()), expected);
    }
    let too_long = wording(bind(&format!("{longest}x")).unwrap_err());
    let expected = "has 108 bytes behind unix:, write at most 107, the kernel takes no more";
    assert!(too_long.ends_with(expected), "{too_long}");
}

#[test]
fn what_is_no_address_is_told_what_it_lacks() {
    for (text, expected) in [
        ("", "`` has no port, write HOST:PORT, such as 0.0.0.0:5432"),
        (
            "10.0.0.1",
            "`10.0.0.1` has no port, write 10.0.0.1:5432 with the right port",
        ),
        (
            "[::1]",
            "`[::1]` has no port, write \"[::1]:5432\" with the right port",
        ),
        (
            "::1",
            "`::1` is an IPv6 address without brackets, write \"[::1]:5432\" with the right port",
        ),
        (
            "::1:80",
            "`::1:80` is an IPv6 address without brackets, write \"[::1]:80\"",
        ),
        (
            "::1:18080",
            "`::1:18080` is an IPv6 address without brackets, write \"[::1]:18080\"",
        ),
        (
            "1.1.1.1:80@3",
            "`1.1.1.1:80@3` has an @ in it, write an address without a weight: servers alone have one",
        ),
        (
            "db:99999",
            "`db:99999` has the port `99999`, write one from 1 to 65535",
        ),
        (
            "db.example.com:80",
            "`db.example.com:80` has the name `db.example.com` for a host, write an IP address such as 0.0.0.0:5432",
        ),
        (
            "1.2.3.400:80",
            "`1.2.3.400:80` is not an address and its port, write an IP address such as 0.0.0.0:5432",
        ),
        (
            "[::x]:80",
            "`[::x]:80` is not an IPv6 address and its port, write one such as \"[2001:db8::1]:80\"",
        ),
        (
            "[::ffff:10.0.0.1]:80",
            "`[::ffff:10.0.0.1]:80` is an IPv4 address in IPv6 form, write 10.0.0.1:80",
        ),
        (
            ":80",
            "`:80` has no host, write \"*:80\" for every address, 0.0.0.0:80 for every IPv4 address, \"[::]:80\" for every IPv6 address",
        ),
        (
            "80",
            "`80` has no host, write \"*:80\" for every address, 0.0.0.0:80 for every IPv4 address, \"[::]:80\" for every IPv6 address",
        ),
    ] {
        assert_eq!(wording(bind(text).unwrap_err()), expected);
    }
}

#[test]
fn what_is_no_range_of_ports_is_told_how_one_is_written() {
    for (text, expected) in [
        (
            "1.2.3.4:7010-7000",
            "`1.2.3.4:7010-7000` has the ports `7010-7000`, write the lower one first: 7000-7010",
        ),
        (
            "1.2.3.4:0-7000",
            "`1.2.3.4:0-7000` has the ports `0-7000`, write two from 1 to 65535, such as 7000-7010",
        ),
        (
            "1.2.3.4:7000-70000",
            "`1.2.3.4:7000-70000` has the ports `7000-70000`, write two from 1 to 65535, such as 7000-7010",
        ),
        (
            "db:7000-7010",
            "`db:7000-7010` has the name `db` for a host, write an IP address such as 0.0.0.0:5432",
        ),
        (
            "[::ffff:10.0.0.1]:80-81",
            "`[::ffff:10.0.0.1]:80-81` is an IPv4 address in IPv6 form, write 10.0.0.1:80",
        ),
    ] {
        assert_eq!(wording(bind(text).unwrap_err()), expected);
    }
}

#[test]
fn a_server_is_one_address_with_one_port() {
    for (text, expected) in [
        (
            "10.0.0.1:0",
            "`10.0.0.1:0` has port 0, write the port that the server listens at",
        ),
        (
            "0.0.0.0:80",
            "`0.0.0.0:80` is no single address, write 127.0.0.1:80 for this machine",
        ),
        (
            "[::]:80",
            "`[::]:80` is no single address, write \"[::1]:80\" for this machine",
        ),
        (
            ":80",
            "`:80` has no host, write an IP address such as 127.0.0.1:80",
        ),
        (
            "*:80",
            "`*:80` has no host, write an IP address such as 127.0.0.1:80",
        ),
        (
            "http://127.0.0.1:80",
            "`http://127.0.0.1:80` begins with `http://`, leave out `http://`",
        ),
        (
            "1.1.1.1:1,1.1.1.1:2",
            "`1.1.1.1:1,1.1.1.1:2` is more than one address, write a list with each as an item",
        ),
        (
            "1.1.1.1:1@3",
            "`1.1.1.1:1@3` has an @ in it, write {address: ADDR, weight: WEIGHT} for a weight",
        ),
        (
            " 1.1.1.1:1",
            "` 1.1.1.1:1` begins or ends with a blank, write it without",
        ),
    ] {
        assert_eq!(wording(server(text).unwrap_err()), expected);
    }
}
