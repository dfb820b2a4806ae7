//! Whole texts with one pool: what becomes of its keys, and which of them do not go together.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    AgentCheck, Check, ExecCheck, GrpcCheck, Keepalive, MysqlCheck, Outlier, Pool, PostgresCheck,
    PostgresRole, Question, Queue, RedisCheck, SendProxy, ServerTcp, Template, Tls, read,
};

/// The pool with these keys, in flow style.
fn pool(keys: &str) -> Result<Pool, String> {
    let text =
        format!("listeners: {{l: {{bind: 127.0.0.1:80, pool: p}}}}\npools: {{p: {{{keys}}}}}");
    let config = read("x", &text).map_err(|mistakes| mistakes.to_string())?;
    Ok(config.pools[0].clone())
}

/// With a server.
fn with(keys: &str) -> Result<Pool, String> {
    pool(&format!("{keys}, servers: [10.0.0.1:80]"))
}

fn check(health: &str) -> Check {
    let pool = with(&format!("health: {{{health}}}")).unwrap();
    pool.health.unwrap().check.clone()
}

/// What is said after the path, of each mistake.
fn wrong(keys: &str) -> Vec<String> {
    let mistakes = pool(keys).unwrap_err();
    let said = |line: &str| line.splitn(5, ':').last().unwrap().trim().to_owned();
    mistakes.lines().map(said).collect()
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

#[test]
fn every_key_of_a_pool_has_its_effect() {
    let pool = with(
        "queue: {limit: 1000, timeout: 3s}, send_proxy: v2, slow_start: 30s, fail_open: true, \
         outlier: {failures: 7, ejection: 1m, max_ejected_percent: 10}, \
         source: [10.0.0.5, '::1'], tcp: {keepalive: 60s, user_timeout: 30s}",
    );
    let pool = pool.unwrap();
    let timeout = Duration::from_secs(3);
    assert_eq!(
        pool.queue,
        Queue {
            limit: 1000,
            timeout
        }
    );
    assert_eq!(pool.send_proxy, SendProxy::V2);
    assert_eq!(pool.slow_start, Duration::from_secs(30));
    assert!(pool.fail_open);
    let outlier = Outlier {
        failures: number(7),
        ejection: Duration::from_secs(60),
        max_ejected_percent: 10,
    };
    assert_eq!(pool.outlier, Some(outlier));
    let source: Vec<_> = pool.source.iter().map(ToString::to_string).collect();
    assert_eq!(source, ["10.0.0.5", "::1"]);
    let tcp = ServerTcp {
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(60),
            interval: None,
            probes: None,
        }),
        user_timeout: Some(Duration::from_secs(30)),
    };
    assert_eq!(pool.tcp, Some(tcp));
}

#[test]
fn what_is_not_written_has_the_documented_default() {
    let plain = with("retries: 2").unwrap();
    let queue = Queue {
        limit: 0,
        timeout: Duration::from_secs(10),
    };
    assert_eq!((plain.queue, plain.send_proxy), (queue, SendProxy::Off));
    assert_eq!((plain.slow_start, plain.fail_open), (Duration::ZERO, false));
    assert_eq!((plain.outlier, plain.tcp), (None, None));
    assert_eq!(plain.resolve, Duration::from_secs(10));
    let outlier = Outlier {
        failures: number(5),
        ejection: Duration::from_secs(30),
        max_ejected_percent: 50,
    };
    assert_eq!(with("outlier: {}").unwrap().outlier, Some(outlier));
    assert_eq!(with("outlier: off").unwrap().outlier, None);
    assert_eq!(
        with("queue: {limit: 5}").unwrap().queue.timeout,
        queue.timeout
    );
}

#[test]
fn keepalive_is_off_or_as_fine_as_the_kernel_has_it() {
    let keepalive = |written: &str| {
        let pool = with(&format!("tcp: {{keepalive: {written}}}"));
        pool.map(|pool| pool.tcp.unwrap().keepalive)
    };
    assert_eq!(keepalive("off"), Ok(None));
    let full = Keepalive {
        idle: Duration::from_secs(9),
        interval: Some(Duration::from_secs(2)),
        probes: Some(number(3)),
    };
    assert_eq!(
        keepalive("{idle: 9s, interval: 2s, probes: 3}"),
        Ok(Some(full))
    );
    for bad in [
        "on",
        "1500ms",
        "0s",
        "32768s",
        "{interval: 2s}",
        "{idle: 1s, probes: 128}",
    ] {
        assert!(keepalive(bad).is_err(), "{bad}");
    }
    assert!(with("tcp: {user_timeout: 25d}").is_err());
}

#[test]
fn names_and_a_file_are_templates_and_not_servers() {
    let pool = pool(
        "resolve: 2s, servers_file: /s, servers: [10.0.0.1:80, 'DB.x:1', \
         {name: pg, address: 'srv:_pg._tcp.x', weight: 0, max_connections: 9, backup: true}]",
    );
    let pool = pool.unwrap();
    assert_eq!((pool.servers.len(), pool.resolve.as_secs()), (1, 2));
    let plain = |question| Template {
        question: Arc::new(question),
        name: None,
        weight: 1,
        max_connections: None,
        backup: false,
    };
    let (name, port) = ("db.x".into(), 1);
    let service = Template {
        name: Some("pg".into()),
        weight: 0,
        max_connections: Some(number(9)),
        backup: true,
        ..plain(Question::Service("_pg._tcp.x".into()))
    };
    let file = plain(Question::File("/s".into()));
    let host = plain(Question::Host { name, port });
    assert_eq!(pool.templates, [host, service, file]);
}

#[test]
fn servers_may_be_missing_where_something_brings_them() {
    for good in [
        "servers_file: /s",
        "servers_file: /s, servers: []",
        "servers: ['db:1']",
        "servers_file: /s, servers: [{address: 10.0.0.1:80, weight: 0}]",
        "servers: ['db:1', {address: 10.0.0.1:80, weight: 0}]",
        "servers: [{address: 'db:1', weight: 0}]",
    ] {
        assert!(pool(good).is_ok(), "{good}");
    }
    for bad in [
        "servers: []",
        "retries: 1",
        "servers: [{address: 10.0.0.1:80, weight: 0}]",
    ] {
        assert!(pool(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_range_of_ports_is_a_server_at_each() {
    let names = |server: &str| -> Vec<String> {
        let pool = pool(&format!("servers: [{server}]")).unwrap();
        let shown = |server: &crate::config::Server| format!("{} {}", server.name, server.address);
        pool.servers.iter().map(shown).collect()
    };
    assert_eq!(
        names("10.0.0.1:80-81"),
        ["10.0.0.1:80 10.0.0.1:80", "10.0.0.1:81 10.0.0.1:81"]
    );
    assert_eq!(
        names("{name: s, address: 10.0.0.1:80-81}"),
        ["s-80 10.0.0.1:80", "s-81 10.0.0.1:81"]
    );
    assert_eq!(
        wrong("servers: [10.0.0.1:80-85, 10.0.0.1:82-90]"),
        ["10.0.0.1:82 is a server in line 2 already, remove one of the two"]
    );
    let many = ["10.0.0.1:1-65535"; 2].join(", ");
    assert!(wrong(&format!("servers: [{many}]"))[0].contains("there are 131070 servers"));
}

#[test]
fn what_does_not_go_together_is_said() {
    for (keys, expected) in [
        (
            "queue: {timeout: 1s}, servers: [10.0.0.1:80]",
            "timeout has no effect without limit, write limit: 1000 beside it",
        ),
        (
            "source: 10.0.0.5, servers: ['[::1]:80']",
            "no source is an IPv6 address, as [::1]:80 is, write one more under source",
        ),
        (
            "source: [10.0.0.5, 10.0.0.5], servers: [10.0.0.1:80]",
            "10.0.0.5 is a source in line 2 already, remove one of the two",
        ),
        (
            "servers: ['db:1', 'DB.:1']",
            "db:1 is a server in line 2 already, remove one of the two",
        ),
        (
            "servers: [{name: a, address: 'db:1'}, {name: a, address: 10.0.0.1:80}]",
            "`a` is a server's name in line 2 already, write another name",
        ),
    ] {
        assert_eq!(wrong(keys), [expected]);
    }
    let long = "x".repeat(90);
    let wrong = wrong(&format!("servers: [{{name: {long}, address: 'db:1'}}]"));
    assert_eq!(
        wrong,
        ["the name has 90 bytes, write at most 80, an address goes behind it"]
    );
}

#[test]
fn every_type_of_check_has_its_keys() {
    let password_file = Some("/p".into());
    assert_eq!(
        check("type: redis, password_file: /p"),
        Check::Redis(RedisCheck { password_file })
    );
    assert_eq!(
        check("type: postgres, user: u, database: d, role: primary"),
        Check::Postgres(PostgresCheck {
            user: "u".to_owned(),
            database: Some("d".to_owned()),
            role: PostgresRole::Primary,
            password_file: None,
        })
    );
    assert_eq!(
        check("type: mysql"),
        Check::Mysql(MysqlCheck {
            user: "evenkeel".to_owned(),
            password_file: None,
        })
    );
    assert_eq!(
        check("type: grpc, service: a.B, host: h"),
        Check::Grpc(GrpcCheck {
            service: "a.B".to_owned(),
            host: Some("h".to_owned()),
        })
    );
    assert_eq!(
        check("type: exec, command: [/bin/x, '', a b]"),
        Check::Exec(ExecCheck {
            command: vec!["/bin/x".to_owned(), String::new(), "a b".to_owned()],
        })
    );
    assert_eq!(
        check(r#"type: agent, send: "x\n", port: 9"#),
        Check::Agent(AgentCheck {
            send: b"x\n".to_vec(),
        })
    );
}

#[test]
fn tls_is_true_or_has_keys() {
    let tls = |written: &str| {
        let pool = with(&format!("health: {{type: grpc, tls: {written}}}"));
        pool.map(|pool| pool.health.unwrap().tls.as_deref().cloned())
    };
    let usual = Tls {
        verify: true,
        ca: None,
        server_name: None,
    };
    assert_eq!(tls("false"), Ok(None));
    assert_eq!(tls("true"), Ok(Some(usual.clone())));
    assert_eq!(tls("{}"), Ok(Some(usual)));
    let full = Tls {
        verify: true,
        ca: Some("/ca".into()),
        server_name: Some("db.x".into()),
    };
    assert_eq!(
        tls("{verify: true, ca: /ca, server_name: DB.x}"),
        Ok(Some(full))
    );
    for bad in ["yes", "{ca: /ca, verify: false}", "{server_name: 'a:1'}"] {
        assert!(tls(bad).is_err(), "{bad}");
    }
}

#[test]
fn each_key_of_health_belongs_to_its_types() {
    let keys = [
        ("path: /", "http"),
        ("host: h", "http grpc"),
        ("expect_status: 200", "http"),
        ("expect_body: x", "http"),
        ("send: x", "send_expect agent"),
        ("user: u", "postgres mysql"),
        ("database: d", "postgres"),
        ("role: any", "postgres"),
        ("password_file: /p", "redis postgres mysql"),
        ("service: s", "grpc"),
        ("tls: true", "tcp http grpc"),
        (
            "port: 1",
            "tcp http send_expect redis postgres mysql grpc agent",
        ),
    ];
    let needed = |kind| match kind {
        "send_expect" => ", expect: x",
        "postgres" => ", user: u",
        "exec" => ", command: [/x]",
        _ => "",
    };
    for kind in crate::config::checks::CheckKind::ALL {
        let kind = kind.name();
        for (key, owners) in keys {
            // It is there already.
            if needed(kind).contains(key) {
                continue;
            }
            let is_owner = owners.split(' ').any(|owner| owner == kind);
            let health = format!("health: {{type: {kind}, {key}{}}}", needed(kind));
            assert_eq!(with(&health).is_ok(), is_owner, "{health}");
        }
    }
}

#[test]
fn a_key_that_has_nothing_to_do_yet_may_stand() {
    let text = "listeners: {web: {bind: 127.0.0.1:80, pool: web}}
pools: {web: {resolve: 5s, servers: [10.0.0.1:80]}}";
    assert!(read("x", text).is_ok());
}
