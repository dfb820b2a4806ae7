//! Whole texts: what becomes of them, that one run finds every mistake, and that hostile ones are
//! answered with a message. The exact messages stand beside the files of `tests/it/config`.

use proptest::prelude::*;

use super::*;
use crate::balance::Algorithm;
use crate::ids::PoolId;

const GOOD: &str = "
listeners:
  web: {bind: 127.0.0.1:8080, pool: web}
pools:
  web:
    servers: [127.0.0.1:9001, 127.0.0.1:9002]
";

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = read("x", text).unwrap_err();
    mistakes.to_string().lines().map(str::to_owned).collect()
}

/// The valid keys of the section at `bogus`, as the message about an unknown one lists them.
fn keys(text: &str) -> Vec<String> {
    let mistakes = read("x", text).unwrap_err();
    let bogus = mistakes
        .shown
        .iter()
        .find(|mistake| mistake.path.ends_with("bogus-key"));
    let list = bogus.unwrap().remedy.strip_prefix("write one of ").unwrap();
    list.split(", ").map(str::to_owned).collect()
}

fn all_keys() -> Vec<String> {
    [
        "bogus-key: 1",
        "admin: {bogus-key: 1}",
        "log: {bogus-key: 1}",
        "listeners: {a: {bogus-key: 1}}",
        "listeners: {a: {per_ip: {bogus-key: 1}}}",
        "listeners: {a: {tcp: {bogus-key: 1}}}",
        "listeners: {a: {tcp: {keepalive: {bogus-key: 1}}}}",
        "pools: {a: {bogus-key: 1}}",
        "pools: {a: {hash: {bogus-key: 1}}}",
        "pools: {a: {queue: {bogus-key: 1}}}",
        "pools: {a: {outlier: {bogus-key: 1}}}",
        "pools: {a: {tcp: {bogus-key: 1}}}",
        "pools: {a: {tcp: {keepalive: {bogus-key: 1}}}}",
        "pools: {a: {health: {tls: {bogus-key: 1}}}}",
        "pools: {a: {health: {bogus-key: 1}}}",
        "pools: {a: {servers: [{bogus-key: 1}]}}",
    ]
    .into_iter()
    .flat_map(keys)
    .collect()
}

#[test]
fn every_key_can_be_looked_up() {
    let keys = all_keys();
    assert!(keys.len() >= 94, "{keys:?}");
    let file = include_str!("../../conf/evenkeel.yaml");
    let manual = include_str!("../../docs/configuration.md");
    for key in keys {
        assert!(
            file.contains(&format!("{key}:")),
            "evenkeel.yaml lacks {key}"
        );
        assert!(
            manual.contains(&format!("`{key}`")),
            "configuration.md lacks {key}"
        );
    }
}

#[test]
fn the_example_states_the_defaults() {
    let written = read("x", include_str!("../../conf/evenkeel.yaml")).unwrap();
    let defaults = "
        listeners: {main: {bind: 0.0.0.0:5432, pool: main}}
        pools:
          main:
            servers: [10.0.0.11:5432, {name: db2, address: 10.0.0.12:5432}]
    ";
    assert_eq!(written, read("x", defaults).unwrap());
}

#[test]
fn every_key_has_its_effect() {
    let config = read(
        "x",
        r#"
workers: 3
max_connections: 1000
shutdown_timeout: 0s
ready_when: [p, q]
admin: {socket: ./a.sock, http: "[::1]:0", http_hosts: [LB, b.c], http_token_file: /t}
log: {level: debug, access: /var/log/x, format: json}
listeners:
  a: {bind: ["127.0.0.1:80", "[::1]:80"], pool: q, idle_timeout: 1m, half_close_timeout: 2s}
pools:
  p:
    health: {type: send_expect, send: "PING\r\n", expect: "+PONG"}
    servers: [10.0.0.1:6379]
  q:
    algorithm: ip_hash
    hash: {ipv4_prefix: 24, ipv6_prefix: 48, bounded_load: 1.5}
    connect_timeout: 100ms
    retries: 0
    on_down: close
    health: {type: http, path: /h, host: h, expect_status: "200-204,301", expect_body: ok,
             interval: 1s, timeout: 500ms, rise: 1, fall: 4, port: 81}
    servers: [{name: s, address: 10.0.0.1:80, weight: 7, max_connections: 9, backup: true}]
"#,
    )
    .unwrap();
    assert_eq!(config.workers.unwrap().get(), 3);
    assert_eq!(config.max_connections.unwrap().get(), 1000);
    assert_eq!(config.shutdown_timeout, Duration::ZERO);
    let counting = ReadyWhen::Pools(vec!["p".into(), "q".into()]);
    assert_eq!(config.ready_when, counting);
    let admin = Admin {
        socket: AdminSocket::At("./a.sock".into()),
        http: Some("[::1]:0".parse().unwrap()),
        http_hosts: vec!["lb".to_owned(), "b.c".to_owned()],
        http_token_file: Some("/t".into()),
        is_open: false,
    };
    assert_eq!(config.admin, admin);
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert_eq!(config.log.access, AccessLog::File("/var/log/x".into()));
    assert_eq!(config.log.format, LogFormat::Json);
    let listener = &config.listeners[0];
    assert_eq!(listener.bind.len(), 2);
    assert_eq!(listener.pool, PoolId::new(1));
    assert_eq!(listener.idle_timeout, Duration::from_secs(60));
    assert_eq!(listener.half_close_timeout, Duration::from_secs(2));
    let check = &config.pools[0].health.as_ref().unwrap().check;
    let (send, expect) = (b"PING\r\n".to_vec(), b"+PONG".to_vec());
    assert_eq!(*check, Check::SendExpect { send, expect });
    let pool = &config.pools[1];
    assert_eq!(pool.algorithm, Algorithm::IpHash);
    assert_eq!((pool.hash.ipv4_prefix, pool.hash.ipv6_prefix), (24, 48));
    assert_eq!(pool.hash.bounded_load, Some(1.5));
    assert_eq!(pool.connect_timeout, Duration::from_millis(100));
    assert_eq!((pool.retries, pool.on_down), (0, OnDown::Close));
    let health = pool.health.as_deref().unwrap();
    let http = HttpCheck {
        path: "/h".to_owned(),
        host: Some("h".to_owned()),
        expect_status: vec![200..=204, 301..=301],
        expect_body: Some("ok".to_owned()),
    };
    assert_eq!(health.check, Check::Http(http));
    assert_eq!(health.interval, Duration::from_secs(1));
    assert_eq!(health.timeout, Duration::from_millis(500));
    assert_eq!((health.rise.get(), health.fall.get()), (1, 4));
    assert_eq!(health.port, Some(81));
    let server = &pool.servers[0];
    assert_eq!((&*server.name, server.weight), ("s", 7));
    assert_eq!(server.max_connections.unwrap().get(), 9);
    assert!(server.backup);
}

#[test]
fn quotes_make_no_difference_to_a_type() {
    let plain = GOOD.replace("servers:", "retries: 1\n    health: off\n    servers:");
    let quoted = plain
        .replace("retries: 1", "retries: \"1\"")
        .replace("off", "'off'");
    assert_eq!(read("x", &plain).unwrap(), read("x", &quoted).unwrap());
}

#[test]
fn an_alias_is_what_it_stands_for() {
    let aliased = "
listeners: {web: {bind: 127.0.0.1:8080, pool: a}}
pools:
  a: {health: &health {interval: 7s}, servers: &servers [127.0.0.1:9001]}
  b: {health: *health, servers: *servers}
";
    let config = read("x", aliased).unwrap();
    assert_eq!(config.pools[0].health, config.pools[1].health);
    assert_eq!(config.pools[0].servers, config.pools[1].servers);
}

#[test]
fn a_timeout_may_be_over_the_interval() {
    let text = GOOD.replace(
        "servers:",
        "health: {interval: 1s, timeout: 3s}\n    servers:",
    );
    let config = read("x", &text).unwrap();
    let health = config.pools[0].health.as_ref().unwrap();
    assert_eq!(
        (health.interval, health.timeout),
        (Duration::from_secs(1), Duration::from_secs(3))
    );
}

#[test]
fn what_could_not_be_read_causes_no_second_mistake() {
    for (text, count) in [
        (
            "listeners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: 1}",
            1,
        ),
        ("listeners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: 1", 1),
        (
            "listeners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: {servers: [{address: x, weight: 0}]}}",
            1,
        ),
        (
            "listeners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: {algorithm: x, hash: {}, servers: [1.1.1.1:2]}}",
            1,
        ),
        (
            "listeners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: {health: {type: x, path: /}, servers: [1.1.1.1:2]}}",
            1,
        ),
        (
            "listeners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: {health: {interval: 9, timeout: 9s}, servers: [1.1.1.1:2]}}",
            1,
        ),
        (
            "admin: {http: x, http_token_file: ./t}\nlisteners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: {servers: [1.1.1.1:2]}}",
            1,
        ),
        (
            "admin: 5\nlisteners: {a: {bind: 1.1.1.1:1, pool: p}}\npools: {p: {servers: [1.1.1.1:2]}}",
            1,
        ),
        (
            "listeners: {a: {bind: x, pool: [p]}}\npools: {p: {servers: [1.1.1.1:2]}}",
            2,
        ),
    ] {
        let mistakes = mistakes(text);
        assert_eq!(mistakes.len(), count, "{text}: {mistakes:#?}");
    }
}

#[test]
fn the_kernel_decides_which_addresses_clash() {
    let with = |bind: &str| GOOD.replace("127.0.0.1:8080", &format!("[{bind}]"));
    for good in [
        "'0.0.0.0:80', '[::]:80'",
        "127.0.0.1:80, 127.0.0.2:80",
        "0.0.0.0:0, 0.0.0.0:0",
    ] {
        assert!(read("x", &with(good)).is_ok(), "{good}");
    }
    for bad in [
        "0.0.0.0:80, 127.0.0.1:80",
        "127.0.0.1:80, 0.0.0.0:80",
        "'[::]:80', '[::1]:80'",
    ] {
        assert_eq!(mistakes(&with(bad)).len(), 1, "{bad}");
    }
}

#[test]
fn a_server_behind_its_own_listener_is_a_loop() {
    let with = |bind: &str, server: &str| {
        let text = GOOD.replace("127.0.0.1:8080", bind);
        read("x", &text.replace("127.0.0.1:9001", server)).is_ok()
    };
    assert!(!with("127.0.0.1:80", "127.0.0.1:80"));
    assert!(!with("0.0.0.0:80", "127.0.0.1:80"));
    assert!(!with("'[::]:80'", "'[::1]:80'"));
    assert!(with("0.0.0.0:80", "'[::1]:80'"));
    assert!(with("0.0.0.0:80", "10.0.0.1:80"));
    assert!(with("127.0.0.1:80", "127.0.0.1:81"));
}

/// Pools in a row: the server of each is the listener of the next one; the last one's is `last`.
fn row(count: u16, last: u16) -> String {
    let address = |port: u16| format!("127.0.0.1:{}", 10_000 + port);
    let mut text = "listeners:\n".to_owned();
    for n in 0..count {
        text.push_str(&format!("  l{n}: {{bind: '{}', pool: p{n}}}\n", address(n)));
    }
    text.push_str("pools:\n");
    for n in 0..count {
        let next = if n + 1 == count { last } else { n + 1 };
        text.push_str(&format!("  p{n}: {{servers: ['{}']}}\n", address(next)));
    }
    text
}

#[test]
fn a_circle_of_pools_is_a_loop_and_a_row_is_none() {
    assert!(read("x", &row(10_000, 10_000)).is_ok());
    for (last, leads_to) in [(0, "p0"), (4_000, "p4000")] {
        let mistakes = mistakes(&row(10_000, last));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let expected = format!("whose pool {leads_to} leads back to this one");
        assert!(mistakes[0].contains(&expected), "{mistakes:?}");
        assert!(
            mistakes[0].contains("pools.p9999.servers[0]"),
            "{mistakes:?}"
        );
    }
}

#[test]
fn a_file_that_may_not_be_read_is_told_whose_it_must_be() {
    let error = LoadError::Unreadable {
        path: "/x".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    };
    assert_eq!(
        error.to_string(),
        "cannot read /x: permission denied, it must be readable by the user that evenkeel runs as"
    );
}

/// Each level doubles the one before it.
fn alias_bomb() -> String {
    let mut text = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..40 {
        let below = level - 1;
        text.push_str(&format!("a{level}: &a{level} [*a{below}, *a{below}]\n"));
    }
    text
}

#[test]
fn hostile_texts_are_answered_briefly() {
    for (text, expected) in [
        (alias_bomb(), "aliases"),
        ("[".repeat(1 << 20), "nested"),
        ("{a: ".repeat(1 << 18), "nested"),
        ("- ".repeat(1 << 18), "nested"),
        ("- x\n".repeat(1 << 20), "too large"),
        (format!("a: {}", "x".repeat(10 << 20)), "bytes"),
        (format!("{}: 1", "x".repeat(10 << 20)), "not YAML"),
        ("a: &a [*a]".to_owned(), "contains itself"),
        ("a: 1\0".to_owned(), "not YAML"),
        ("\u{feff}".to_owned(), "empty"),
    ] {
        let mistakes = mistakes(&text);
        assert!(
            mistakes.iter().any(|line| line.contains(expected)),
            "{mistakes:?}"
        );
        assert!(mistakes.iter().all(|line| line.len() < 300), "{mistakes:?}");
    }
}

#[test]
fn many_mistakes_are_counted_and_not_kept() {
    let unknown: String = (0..100_000).map(|key| format!("k{key}: 1\n")).collect();
    let mistakes = mistakes(&format!("{unknown}{GOOD}"));
    assert_eq!(mistakes.len(), 101);
    assert_eq!(mistakes[100], "x: and 99900 more");
}

#[test]
fn more_than_can_run_is_refused() {
    let servers: String = (0..100_001)
        .map(|n| format!("10.0.0.1:{}, ", n % 60_000 + 1))
        .collect();
    let text = GOOD.replace("127.0.0.1:9001, ", &servers);
    assert_eq!(
        mistakes(&text),
        ["x:1:1: pools: there are 100002 servers, write at most 100000"]
    );
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        let _outcome = read("x", &text);
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([-\\[\\]{}:,&*!'\"a0 \n#|>%~?@]){0,60}") {
        let _outcome = read("x", &text);
    }

    #[test]
    fn no_change_of_a_good_file_panics(
        at in 0..GOOD.len(),
        gone in 0..8_usize,
        put in "([-\\[\\]{}:,&*!'\"a0 \n]){0,4}",
    ) {
        let (before, after) = GOOD.split_at(at);
        let text = format!("{before}{put}{}", &after[gone.min(after.len())..]);
        if let Err(mistakes) = read("x", &text) {
            prop_assert!(!mistakes.shown.is_empty());
        }
    }
}

#[test]
fn a_digest_is_the_same_in_every_version() {
    // XXH3 with 64 bits, as its author published it.
    assert_eq!(digest(b""), "2d06800538d394c2");
    assert_ne!(digest(b"a"), digest(b"b"));
}
