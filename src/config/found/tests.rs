//! What becomes of a config and of answers.

use std::sync::Arc;

use super::*;
use crate::config;

const FILE: &str = "\
listeners:
  web:
    bind: 127.0.0.1:8080
    pool: web
pools:
  web:
    servers: [10.0.0.9:80, {name: spare, address: 10.0.0.8:80, weight: 7}]
";

fn question(name: &str) -> Arc<Question> {
    Arc::new(Question::Host {
        name: name.into(),
        port: 80,
    })
}

fn template(question: &Arc<Question>, name: Option<&str>) -> Template {
    Template {
        question: Arc::clone(question),
        name: name.map(Arc::from),
        weight: 3,
        max_connections: None,
        backup: false,
    }
}

fn found(ip: &str) -> Found {
    Found::at(Address::Ip(format!("{ip}:80").parse().unwrap()))
}

fn config(templates: Vec<Template>) -> Config {
    let mut config = config::read("x.yaml", FILE).unwrap();
    config.pools[0].templates = templates;
    config
}

fn answers(all: &[(&Arc<Question>, &[Found])]) -> Answers {
    let all = all.iter();
    all.map(|(question, found)| (Arc::clone(question), Arc::from(*found)))
        .collect()
}

fn names(config: &Config) -> Vec<String> {
    let servers = config.pools[0].servers.iter();
    servers
        .map(|server| format!("{}*{}", server.name, server.weight))
        .collect()
}

#[test]
fn found_servers_follow_the_written_ones_and_are_replaced() {
    let db = question("db.example.com");
    let config = config(vec![template(&db, Some("db"))]);
    let first = answers(&[(&db, &[found("10.0.0.1"), found("10.0.0.2")])]);
    let once = expand(&config, &first, |_, _, _| None);
    let wanted = [
        "10.0.0.9:80*1",
        "spare*7",
        "db-10.0.0.1:80*3",
        "db-10.0.0.2:80*3",
    ];
    assert_eq!(names(&once.config), wanted);
    let second = answers(&[(&db, &[found("10.0.0.3")])]);
    let twice = expand(&once.config, &second, |_, _, _| None);
    let wanted = ["10.0.0.9:80*1", "spare*7", "db-10.0.0.3:80*3"];
    assert_eq!(names(&twice.config), wanted);
    assert_eq!(
        expand(&once.config, &Answers::new(), |_, _, _| None).config,
        config
    );
}

#[test]
fn one_address_is_one_server_and_the_written_one_wins() {
    let (a, b) = (question("a"), question("b"));
    let config = config(vec![template(&a, Some("a")), template(&b, Some("b"))]);
    let both = [found("10.0.0.8"), found("10.0.0.1")];
    let answers = answers(&[(&a, &both), (&b, &both)]);
    let expansion = expand(&config, &answers, |_, _, _| None);
    let wanted = ["10.0.0.9:80*1", "spare*7", "a-10.0.0.1:80*3"];
    assert_eq!(names(&expansion.config), wanted);
    assert!(expansion.left_out.is_empty());
}

#[test]
fn a_name_that_is_taken_or_too_long_gives_way_to_the_address() {
    let a = question("a");
    let long = "x".repeat(128);
    let config = config(vec![template(&a, Some(&long))]);
    let named = |ip, name: &str| Found {
        name: Some(name.into()),
        ..found(ip)
    };
    let all = [
        named("10.0.0.1", "spare"),
        named("10.0.0.2", "one"),
        found("10.0.0.3"),
    ];
    let expansion = expand(&config, &answers(&[(&a, &all)]), |_, _, _| None);
    let wanted = ["10.0.0.1:80*3", "one*3", "10.0.0.3:80*3"];
    assert_eq!(names(&expansion.config)[2..], wanted);
}

#[test]
fn who_is_refused_is_left_out_with_the_reason() {
    let a = question("a");
    let config = config(vec![template(&a, None)]);
    let answers = answers(&[(&a, &[found("10.0.0.1"), found("10.0.0.2")])]);
    let expansion = expand(&config, &answers, |_, pool, address| {
        let is_bad = address.to_string().starts_with("10.0.0.1:");
        is_bad.then(|| format!("not in {pool}"))
    });
    assert_eq!(names(&expansion.config)[2..], ["10.0.0.2:80*3"]);
    let line = "pool web: 10.0.0.1:80 of a:80 is left out: not in 0";
    assert_eq!(expansion.left_out, [line]);
}

#[test]
fn there_are_never_more_servers_than_a_config_may_have() {
    let a = question("a");
    let config = config(vec![template(&a, None)]);
    let many = (0x0b00_0000_u32..).take(SERVERS_MAX).map(|number| {
        let ip = std::net::Ipv4Addr::from(number);
        found(&ip.to_string())
    });
    let many: Vec<_> = many.collect();
    let expansion = expand(&config, &answers(&[(&a, &many)]), |_, _, _| None);
    assert_eq!(expansion.config.pools[0].servers.len(), SERVERS_MAX);
    assert_eq!(expansion.left_out.len(), 2);
}

#[test]
fn an_answer_goes_before_its_template() {
    let a = question("a");
    let config = config(vec![template(&a, None)]);
    let said = Found {
        weight: Some(9),
        max_connections: NonZeroU32::new(5),
        backup: true,
        ..found("10.0.0.1")
    };
    let expansion = expand(&config, &answers(&[(&a, &[said])]), |_, _, _| None);
    let server = &expansion.config.pools[0].servers[2];
    assert_eq!((server.weight, server.backup), (9, true));
    assert_eq!(server.max_connections, NonZeroU32::new(5));
    assert_eq!(server.found_by, Some(a));
}

#[test]
fn an_operators_weight_stays_while_the_server_does() {
    let a = question("a");
    let config = config(vec![template(&a, None)]);
    let weighty = |weight| Found {
        weight: Some(weight),
        ..found("10.0.0.1")
    };
    let first = answers(&[(&a, &[weighty(5), found("10.0.0.2")])]);
    let before = expand(&config, &first, |_, _, _| None).config;
    let mut running = before.clone();
    running.pools[0].servers[3].weight = 99;
    let second = answers(&[(&a, &[weighty(6), found("10.0.0.2"), found("10.0.0.3")])]);
    let mut next = expand(&running, &second, |_, _, _| None).config;
    let gone = keep_weights(&running, &before, &mut next);
    assert!(gone.is_empty());
    let wanted = ["10.0.0.1:80*6", "10.0.0.2:80*99", "10.0.0.3:80*3"];
    assert_eq!(names(&next)[2..], wanted);
    let third = answers(&[(&a, &[found("10.0.0.3")])]);
    let mut next = expand(&running, &third, |_, _, _| None).config;
    let gone = keep_weights(&running, &before, &mut next);
    let pool = Arc::clone(&running.pools[0].name);
    assert_eq!(gone, [(pool, running.pools[0].servers[3].clone())]);
}
