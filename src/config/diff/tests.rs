//! Two texts, and the lines that say what differs between them.

use super::*;
use crate::balance::Algorithm;
use crate::config::{Pool, read};

const BASE: &str = "
listeners:
  web: {bind: 127.0.0.1:8080, pool: web}
pools:
  web:
    algorithm: round_robin
    servers:
      - {name: a, address: 127.0.0.1:9001}
      - {name: b, address: 127.0.0.1:9002}
  old: {servers: [127.0.0.1:9009]}
";

/// The base with `old` replaced by `new`.
fn with(old: &str, new: &str) -> Config {
    assert!(BASE.contains(old), "{old}");
    read("x", &BASE.replace(old, new)).unwrap()
}

fn base() -> Config {
    read("x", BASE).unwrap()
}

/// The lines of what differs; `!` before those that touch connections.
fn lines(running: &Config, wanted: &Config) -> Vec<String> {
    let differences = diff(running, wanted);
    assert_eq!(differences.restart, [""; 0]);
    let line = |difference: &Difference| match difference.touch {
        Touch::Nothing => difference.text.clone(),
        Touch::Connections => format!("!{}", difference.text),
    };
    differences.changes.iter().map(line).collect()
}

/// What `old` becoming `new` is, and what the way back is.
fn there_and_back(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let (base, changed) = (base(), with(old, new));
    (lines(&base, &changed), lines(&changed, &base))
}

#[test]
fn nothing_differs_from_itself() {
    assert_eq!(diff(&base(), &base()), Differences::default());
}

#[test]
fn keys_of_the_process_are_told_apart_by_what_a_new_start_takes() {
    let changed = with(
        "\nlisteners",
        "
workers: 4
max_connections: 1000
shutdown_timeout: 1m
ready_when: [web, old]
admin: {socket: off, http: 127.0.0.1:0, http_hosts: [a, b], http_token_file: ./t}
log: {level: debug, access: off, format: json}
listeners",
    );
    let differences = diff(&base(), &changed);
    let texts: Vec<_> = differences
        .changes
        .iter()
        .map(|d| d.text.as_str())
        .collect();
    assert_eq!(
        texts,
        [
            "max_connections auto -> 1000",
            "shutdown_timeout 30s -> 1m",
            "ready_when all_pools -> [web, old]",
            "log.level info -> debug",
        ]
    );
    assert!(differences.changes.iter().all(|d| d.what == What::Process));
    assert_eq!(
        differences.restart,
        [
            "workers auto -> 4",
            "admin.socket default -> off",
            "admin.http off -> 127.0.0.1:0",
            "admin.http_hosts none -> a, b",
            "admin.http_token_file none -> ./t",
            "log.access stdout -> off",
            "log.format text -> json",
        ]
    );
}

#[test]
fn a_listener_keeps_its_connections_unless_an_address_goes() {
    let listener = "{bind: 127.0.0.1:8080, pool: web}";
    for (new, expected) in [
        (
            "{bind: 127.0.0.1:8081, pool: web}",
            "!listener web: bind 127.0.0.1:8080 -> 127.0.0.1:8081",
        ),
        (
            "{bind: ['127.0.0.1:8081', '127.0.0.1:8080'], pool: web}",
            "listener web: bind 127.0.0.1:8080 -> 127.0.0.1:8081, 127.0.0.1:8080",
        ),
        (
            "{bind: 127.0.0.1:8080, pool: old}",
            "listener web: pool web -> old",
        ),
        (
            "{bind: 127.0.0.1:8080, pool: web, idle_timeout: 5m}",
            "listener web: idle_timeout 1h -> 5m",
        ),
        (
            "{bind: 127.0.0.1:8080, pool: web, half_close_timeout: 1m}",
            "listener web: half_close_timeout 5m -> 1m",
        ),
    ] {
        assert_eq!(lines(&base(), &with(listener, new)), [expected]);
    }
}

#[test]
fn keys_of_a_listener_are_lines_of_their_own() {
    let (there, back) = there_and_back(
        "{bind: 127.0.0.1:8080, pool: web}",
        "{bind: [127.0.0.1:8080, '*:7000-7010', unix:@x], pool: web,
          sni: {a.b: old, '*.b': web}, proxy_protocol: accept, trusted_proxies: ['::1', 10.0.0.0/8],
          allow: 10.0.0.0/8, deny: 10.9.0.0/16, max_connections: 5, max_connections_per_ip: 4,
          connection_rate_per_ip: 3/m, per_ip: {ipv4_prefix: 24, ipv6_prefix: 56},
          header_timeout: 1s, tcp: {keepalive: {idle: 60s, probes: 2}, user_timeout: 1s,
          fast_open: true, backlog: 9}}",
    );
    let keys = [
        "bind 127.0.0.1:8080 -> 127.0.0.1:8080, 0.0.0.0:7000-7010, [::]:7000-7010, unix:@x",
        "sni *.b to pool web added",
        "sni a.b to pool old added",
        "proxy_protocol off -> accept",
        "trusted_proxies nobody -> 10.0.0.0/8, ::1/128",
        "allow everyone -> 10.0.0.0/8",
        "deny nobody -> 10.9.0.0/16",
        "max_connections no limit -> 5",
        "max_connections_per_ip no limit -> 4",
        "connection_rate_per_ip no limit -> 3/m",
        "per_ip.ipv4_prefix 32 -> 24",
        "per_ip.ipv6_prefix 64 -> 56",
        "header_timeout 5s -> 1s",
        "tcp.keepalive off -> {idle: 1m, probes: 2}",
        "tcp.user_timeout off -> 1s",
        "tcp.fast_open false -> true",
        "tcp.backlog 4096 -> 9",
    ];
    assert_eq!(there, keys.map(|key| format!("listener web: {key}")));
    assert_eq!(back.len(), there.len());
    let touching: Vec<_> = back.iter().filter(|line| line.starts_with('!')).collect();
    assert_eq!(touching, [&back[0]]);
    assert_eq!(back[1], "listener web: sni *.b removed");
}

#[test]
fn large_sets_are_counted() {
    let listener = "{bind: 127.0.0.1:8080, pool: web}";
    let with_nets = |key: &str, range: std::ops::Range<u32>| {
        let nets: Vec<_> = range.map(|n| format!("10.0.{n}.0/24")).collect();
        let keys = format!("{key}: [{}]", nets.join(", "));
        with(
            listener,
            &format!("{{bind: 127.0.0.1:8080, pool: web, {keys}}}"),
        )
    };
    let between = |old: &Config, new: &Config| lines(old, new).join("; ");
    let (some, others) = (with_nets("deny", 0..20), with_nets("deny", 3..21));
    let expected = "listener web: deny 1 network added, 3 removed";
    assert_eq!(between(&some, &others), expected);
    let expected = "listener web: deny nobody -> 20 networks";
    assert_eq!(between(&base(), &some), expected);
    let bind = |range: std::ops::Range<u32>| {
        let all: Vec<_> = range.map(|n| format!("127.0.0.{n}:80")).collect();
        with(
            listener,
            &format!("{{bind: [{}], pool: web}}", all.join(", ")),
        )
    };
    let expected = "!listener web: bind 2 addresses added, 1 removed";
    assert_eq!(between(&bind(1..20), &bind(2..22)), expected);
    let names = |count: usize| {
        let all: Vec<_> = (0..count).map(|n| format!("n{n}: web")).collect();
        let keys = format!("sni: {{{}}}", all.join(", "));
        with(
            listener,
            &format!("{{bind: 127.0.0.1:8080, pool: web, {keys}}}"),
        )
    };
    let lines = lines(&base(), &names(20));
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[8], "listener web: sni changes for 12 more names");
}

#[test]
fn what_comes_and_goes_is_one_line_each() {
    let (there, back) = there_and_back("\npools:", "\n  api: {bind: '[::1]:0', pool: web}\npools:");
    assert_eq!(there, ["listener api added ([::1]:0 to pool web)"]);
    assert_eq!(back, ["!listener api removed"]);
    let (there, back) = there_and_back("  old: {servers: [127.0.0.1:9009]}\n", "");
    assert_eq!(there, ["!pool old removed"]);
    assert_eq!(back, ["pool old added (1 server, least_connections)"]);
    let server = "{name: b, address: 127.0.0.1:9002}";
    let more = "{name: c, address: 127.0.0.1:9003, weight: 3, max_connections: 9, backup: true}";
    let (there, back) = there_and_back(server, &format!("{server}\n      - {more}"));
    let words = "127.0.0.1:9003, weight 3, at most 9 connections, backup";
    assert_eq!(there, [format!("server web/c added ({words})")]);
    assert_eq!(back, ["!server web/c removed"]);
}

#[test]
fn a_listener_s_pool_is_known_by_its_name_and_not_by_its_place() {
    let moved = BASE.replace("pools:\n", "pools:\n  first: {servers: [127.0.0.1:9010]}\n");
    let moved = read("x", &moved).unwrap();
    assert_eq!(
        lines(&base(), &moved),
        ["pool first added (1 server, least_connections)"]
    );
}

#[test]
fn keys_of_a_server_are_lines_of_their_own() {
    let server = "{name: a, address: 127.0.0.1:9001}";
    let new = "{name: a, address: 127.0.0.1:9011, weight: 3, max_connections: 5, backup: true}";
    let (there, back) = there_and_back(server, new);
    assert_eq!(
        there,
        [
            "!server web/a: address 127.0.0.1:9001 -> 127.0.0.1:9011",
            "server web/a: weight 1 -> 3",
            "server web/a: max_connections no limit -> 5",
            "server web/a: backup false -> true",
        ]
    );
    assert_eq!(back[2], "server web/a: max_connections 5 -> no limit");
    let what = What::Server {
        pool: "web".into(),
        server: "a".into(),
    };
    let differences = diff(&base(), &with(server, new));
    assert!(differences.changes.iter().all(|d| d.what == what));
}

#[test]
fn keys_of_a_pool_are_lines_of_their_own() {
    let (there, _) = there_and_back(
        "algorithm: round_robin",
        "algorithm: ip_hash
    hash: {ipv4_prefix: 24, ipv6_prefix: 48, bounded_load: 1.25}
    connect_timeout: 1s
    retries: 0
    on_down: close",
    );
    assert_eq!(
        there,
        [
            "pool web: algorithm round_robin -> ip_hash",
            "pool web: hash.ipv4_prefix 32 -> 24",
            "pool web: hash.ipv6_prefix 64 -> 48",
            "pool web: hash.bounded_load off -> 1.25",
            "pool web: connect_timeout 2s -> 1s",
            "pool web: retries 2 -> 0",
            "pool web: on_down keep -> close",
        ]
    );
}

#[test]
fn what_a_pool_does_with_clients_and_servers_is_told_key_by_key() {
    let (there, back) = there_and_back(
        "algorithm: round_robin",
        "algorithm: round_robin
    queue: {limit: 9, timeout: 1s}
    send_proxy: v2
    slow_start: 30s
    fail_open: true
    outlier: {failures: 1}
    source: [127.0.0.2, 127.0.0.3]
    tcp: {keepalive: {idle: 9s, interval: 2s, probes: 3}}",
    );
    let tcp = "keepalive {idle: 9s, interval: 2s, probes: 3}, user_timeout off";
    assert_eq!(
        there,
        [
            "pool web: queue.limit 0 -> 9",
            "pool web: queue.timeout 10s -> 1s",
            "pool web: send_proxy off -> v2",
            "pool web: slow_start 0s -> 30s",
            "pool web: fail_open false -> true",
            "pool web: outlier off -> after 1 failure",
            "pool web: source the kernel's choice -> 127.0.0.2, 127.0.0.3",
            &format!("pool web: tcp the listener's -> {tcp}"),
        ]
    );
    assert_eq!(back[7], format!("pool web: tcp {tcp} -> the listener's"));
    let keys = |keys| with("algorithm: round_robin", keys);
    let old = keys("outlier: {}\n    tcp: {}");
    let new = keys(
        "outlier: {failures: 6, ejection: 1m, max_ejected_percent: 9}
    tcp: {keepalive: 60s, user_timeout: 30s}",
    );
    assert_eq!(
        lines(&old, &new),
        [
            "pool web: outlier.failures 5 -> 6",
            "pool web: outlier.ejection 30s -> 1m",
            "pool web: outlier.max_ejected_percent 50 -> 9",
            "pool web: tcp.keepalive off -> 1m",
            "pool web: tcp.user_timeout off -> 30s",
        ]
    );
}

#[test]
fn what_is_looked_up_is_known_by_its_question() {
    let server = "- {name: b, address: 127.0.0.1:9002}";
    let name = format!("{server}\n      - {{address: 'db.x:1', weight: 2}}");
    let (there, back) = there_and_back(server, &name);
    assert_eq!(there, ["pool web: servers of db.x:1 added (weight 2)"]);
    assert_eq!(back, ["!pool web: servers of db.x:1 removed"]);
    let more = "{name: d, address: 'DB.x:1', max_connections: 9, backup: true}";
    let changed = with(
        server,
        &format!("{server}\n      - {more}\n    resolve: 1s"),
    );
    assert_eq!(
        lines(&with(server, &name), &changed),
        [
            "pool web: resolve 10s -> 1s",
            "!pool web: name of db.x:1 the address -> d",
            "pool web: weight of db.x:1 2 -> 1",
            "pool web: max_connections of db.x:1 no limit -> 9",
            "pool web: backup of db.x:1 false -> true",
        ]
    );
    let (there, _) = there_and_back("{servers: [127.0.0.1:9009]}", "{servers_file: ./s}");
    assert_eq!(
        there,
        [
            "pool old: servers of ./s added",
            "!server old/127.0.0.1:9009 removed"
        ]
    );
}

#[test]
fn servers_that_were_found_are_no_difference() {
    let wanted = with("- {name: b, address: 127.0.0.1:9002}", "- 'db.x:9002'");
    let mut running = wanted.clone();
    let pool = &mut running.pools[0];
    let mut found = pool.servers[0].clone();
    found.name = "found".into();
    found.found_by = Some(Arc::clone(&pool.templates[0].question));
    pool.servers.insert(0, found);
    pool.algorithm = Algorithm::First;
    let wanted = Config {
        pools: vec![
            Pool {
                algorithm: Algorithm::First,
                ..wanted.pools[0].clone()
            },
            wanted.pools[1].clone(),
        ],
        ..wanted
    };
    assert_eq!(diff(&running, &wanted), Differences::default());
    assert_eq!(diff(&wanted, &running), Differences::default());
}

/// The lines between two values of `health`, without the pool.
fn health(old: &str, new: &str) -> Vec<String> {
    let config = |health| with("algorithm: round_robin", &format!("health: {health}"));
    let lines = lines(&config(old), &config(new));
    let short = |line: &String| line.strip_prefix("pool web: ").unwrap().to_owned();
    lines.iter().map(short).collect()
}

#[test]
fn health_is_told_in_words() {
    assert_eq!(health("off", "{}"), ["health off -> tcp every 5s"]);
    let http = "{type: http, path: /health, interval: 2s}";
    assert_eq!(health(http, "off"), ["health http /health every 2s -> off"]);
    assert_eq!(
        health("{interval: 2s}", http),
        ["health.type tcp -> http /health"]
    );
    assert_eq!(
        health(
            "{}",
            "{interval: 1s, timeout: 1s, rise: 1, fall: 1, port: 81}"
        ),
        [
            "health.interval 5s -> 1s",
            "health.timeout 2s -> 1s",
            "health.rise 2 -> 1",
            "health.fall 3 -> 1",
            "health.port the server's own -> 81",
        ]
    );
    let more = "{type: http, host: h, expect_status: '200-299,304', expect_body: ok}";
    assert_eq!(
        health("{type: http}", more),
        [
            "health.host the checked address -> h",
            "health.expect_status 200 -> 200-299,304",
            "health.expect_body any -> `ok`",
        ]
    );
    assert_eq!(
        health(
            "{type: send_expect, expect: x}",
            r#"{type: send_expect, send: "a\r\n", expect: y}"#
        ),
        [
            r"health.send nothing -> `a\r\n`",
            "health.expect `x` -> `y`"
        ]
    );
}

#[test]
fn every_key_of_a_type_of_check_is_compared() {
    for (old, new, expected) in [
        (
            "{type: redis}",
            "{type: redis, password_file: ./p}",
            &["health.password_file none -> ./p"][..],
        ),
        (
            "{type: postgres, user: a}",
            "{type: postgres, user: b, database: d, role: replica, password_file: ./p}",
            &[
                "health.user a -> b",
                "health.database the user's -> d",
                "health.role any -> replica",
                "health.password_file none -> ./p",
            ],
        ),
        (
            "{type: mysql}",
            "{type: mysql, user: b, password_file: ./p}",
            &[
                "health.user evenkeel -> b",
                "health.password_file none -> ./p",
            ],
        ),
        (
            "{type: grpc}",
            "{type: grpc, service: s, host: h, tls: true}",
            &[
                "health.service nothing -> `s`",
                "health.host the checked address -> h",
                "health.tls false -> true",
            ],
        ),
        (
            "{tls: true}",
            "{tls: {ca: ./ca, server_name: n}}",
            &[
                "health.tls.ca the machine's -> ./ca",
                "health.tls.server_name the checked address -> n",
            ],
        ),
        (
            "{tls: true}",
            "{tls: {verify: false}}",
            &["health.tls.verify true -> false"],
        ),
        (
            "{type: exec, command: [/bin/a]}",
            "{type: exec, command: [/bin/a, b c, d]}",
            &[r#"health.command /bin/a -> /bin/a "b c" d"#],
        ),
        (
            "{type: agent}",
            "{type: agent, send: x}",
            &["health.send nothing -> `x`"],
        ),
        (
            "{type: redis}",
            "{type: exec, command: [/bin/a]}",
            &["health.type redis -> exec /bin/a"],
        ),
    ] {
        assert_eq!(health(old, new), expected);
    }
}

#[test]
fn all_that_is_written_of_a_new_type_of_check_is_told() {
    for (old, new, expected) in [
        (
            "{}",
            "{type: postgres, user: b, password_file: ./p, interval: 1s}",
            &[
                "health.type tcp -> postgres",
                "health.user none -> b",
                "health.password_file none -> ./p",
                "health.interval 5s -> 1s",
            ][..],
        ),
        (
            "{type: postgres, user: b, role: replica}",
            "{type: http, path: /x, expect_status: 204, tls: {ca: ./ca}}",
            &[
                "health.type postgres -> http /x",
                "health.expect_status 200 -> 204",
                "health.tls false -> true",
                "health.tls.ca the machine's -> ./ca",
            ],
        ),
        (
            "{type: redis}",
            "{type: send_expect, send: a, expect: b}",
            &[
                "health.type redis -> send_expect",
                "health.send nothing -> `a`",
                "health.expect nothing -> `b`",
            ],
        ),
        (
            "off",
            "{type: mysql, user: b, password_file: ./p, interval: 1s, fall: 1, port: 81}",
            &[
                "health off -> mysql every 1s",
                "health.user evenkeel -> b",
                "health.password_file none -> ./p",
                "health.fall 3 -> 1",
                "health.port the server's own -> 81",
            ],
        ),
    ] {
        assert_eq!(health(old, new), expected);
    }
}

#[test]
fn the_order_of_servers_counts_for_first_alone() {
    let (a, b) = (
        "- {name: a, address: 127.0.0.1:9001}",
        "- {name: b, address: 127.0.0.1:9002}",
    );
    let turned = format!("{b}\n      {a}");
    let order = |algorithm: &str, servers: &str| {
        let text = BASE.replace("round_robin", algorithm);
        read("x", &text.replace(&format!("{a}\n      {b}"), servers)).unwrap()
    };
    let usual = format!("{a}\n      {b}");
    let between = |algorithm| lines(&order(algorithm, &usual), &order(algorithm, &turned));
    assert_eq!(between("random"), [""; 0]);
    assert_eq!(between("first"), ["pool web: servers in another order"]);
    let only_b = lines(&order("first", &usual), &order("first", b));
    assert_eq!(only_b, ["!server web/a removed"]);
}

#[test]
fn a_large_file_that_differs_everywhere_has_a_line_for_each_server() {
    let text = |weight: u32| {
        let mut text = "listeners: {web: {bind: 127.0.0.1:80, pool: p0}}\npools:\n".to_owned();
        for pool in 0..1000 {
            let server =
                |n: usize| format!("{{name: s{n}, address: '10.0.0.{n}:80', weight: {weight}}}");
            let servers: Vec<_> = (0..10).map(server).collect();
            text.push_str(&format!(
                "  p{pool}: {{servers: [{}]}}\n",
                servers.join(", ")
            ));
        }
        read("x", &text).unwrap()
    };
    let differences = diff(&text(1), &text(2)).changes;
    assert_eq!(differences.len(), 10_000);
    assert_eq!(differences[9999].text, "server p999/s9: weight 1 -> 2");
}
