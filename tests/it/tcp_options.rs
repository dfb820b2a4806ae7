//! What a config asks of the kernel for sockets, as the kernel shows it: `ss` tells of each socket's
//! timers and of each listening socket's queue.

use std::process::Command;

use socket2::SockRef;

use crate::harness::eventually_some;
use crate::harness::peers::{Server, ping};
use crate::harness::program::Evenkeel;
use crate::harness::tools::{succeed, tool};

fn config(tcp: &str, pool_tcp: &str, server: &Server) -> String {
    let line = |tcp: &str| match tcp.is_empty() {
        true => String::new(),
        false => format!("    tcp: {tcp}\n"),
    };
    format!(
        "workers: 2\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    pool: web\n{}\
         pools:\n  web:\n    health: off\n{}    servers: [{}]\n",
        line(tcp),
        line(pool_tcp),
        server.address()
    )
}

/// What `ss` says with `arguments` of sockets of the program that match `filter`.
fn ss(evenkeel: &Evenkeel, arguments: &str, filter: &str) -> Vec<String> {
    let mut command = Command::new(tool("ss"));
    command.args(["-H", "-n", "-p", "-t", arguments, filter]);
    let said = succeed(&mut command);
    let mine = format!("pid={},", evenkeel.pid());
    let lines = said.lines().filter(|line| line.contains(&mine));
    lines.map(str::to_owned).collect()
}

/// The timer of the program's socket whose own port, or its peer's, is `port`.
fn timer(evenkeel: &Evenkeel, filter: &str) -> Option<String> {
    let lines = ss(evenkeel, "-o", filter);
    let timer = lines.first()?.split("timer:(").nth(1)?;
    Some(timer.split(')').next()?.to_owned())
}

#[test]
fn keepalive_holds_for_both_sides_and_the_pool_has_the_last_word() {
    let server = Server::listen();
    for (listener, pool, client_has, server_has) in [
        ("", "", false, false),
        ("{keepalive: 60s}", "", true, true),
        ("{keepalive: 60s}", "{keepalive: off}", true, false),
        (
            "",
            "{keepalive: {idle: 90s, interval: 5s, probes: 3}}",
            false,
            true,
        ),
    ] {
        let evenkeel = Evenkeel::start(&config(listener, pool, &server));
        let (mut client, mut serving) = evenkeel.pair(&server);
        ping(&mut client, &mut serving);
        let port = evenkeel.address().port();
        let at_client = format!("sport = :{port}");
        let at_server = format!("dport = :{}", server.address().port());
        for (filter, has) in [(at_client, client_has), (at_server, server_has)] {
            let timer = eventually_some("a timer that is no retransmission's", || {
                let timer = timer(&evenkeel, &filter);
                (!timer.as_ref().is_some_and(|t| t.starts_with("on"))).then_some(timer)
            });
            let is_kept = timer.as_ref().is_some_and(|t| t.starts_with("keepalive"));
            assert_eq!(is_kept, has, "{listener} {pool} {filter}: {timer:?}");
        }
    }
}

#[test]
fn a_reload_changes_the_options_of_doors_that_stay_open() {
    let server = Server::listen();
    let evenkeel = Evenkeel::start(&config("{backlog: 7}", "", &server));
    let port = evenkeel.address().port();
    let filter = format!("sport = :{port}");
    let backlogs = || -> Vec<String> {
        let lines = ss(&evenkeel, "-l", &filter);
        let field = |line: &String| line.split_whitespace().nth(2).unwrap().to_owned();
        lines.iter().map(field).collect()
    };
    assert_eq!(backlogs(), ["7", "7"], "one door for each worker");
    let inodes = evenkeel.proc().tcp_sockets();
    let (mut old, mut old_serving) = evenkeel.pair(&server);
    let options = "{keepalive: 50s, user_timeout: 9s, backlog: 9, fast_open: true}";
    evenkeel.rewrite(&config(options, "", &server));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    assert_eq!(backlogs(), ["9", "9"]);
    assert!(
        inodes
            .iter()
            .all(|inode| evenkeel.proc().tcp_sockets().contains(inode))
    );
    ping(&mut old, &mut old_serving);
    drop((old, old_serving));
    let (mut client, mut serving) = evenkeel.pair(&server);
    ping(&mut client, &mut serving);
    let dport = SockRef::from(&client).local_addr().unwrap();
    let dport = dport.as_socket().unwrap().port();
    let filter = format!("dport = :{dport}");
    let kept = eventually_some("the keepalive timer", || {
        timer(&evenkeel, &filter).filter(|timer| timer.starts_with("keepalive"))
    });
    assert!(kept.contains("sec"), "{kept}");
    let said = evenkeel.errors().text();
    assert!(!said.contains("ERROR"), "{said}");
}
