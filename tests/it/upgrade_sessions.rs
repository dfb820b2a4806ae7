//! Sessions that hold more than bytes live through ten upgrades in a row: a transaction of PostgreSQL
//! that is open all the time, and a subscriber of Redis that gets every message.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

use crate::harness::databases::{postgres, redis};
use crate::harness::lines::Lines;
use crate::harness::program::Evenkeel;
use crate::harness::tools::{postgres_tool, succeed, tool};
use crate::harness::{eventually, with_health, with_pool};

const UPGRADES: usize = 10;

/// A client program that stays, with what it says; it ends with this.
struct Session {
    child: Child,
    input: Option<ChildStdin>,
    said: Lines,
}

impl Session {
    fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.stderr(Stdio::inherit()).spawn().unwrap();
        let said = Lines::gather(child.stdout.take().expect("it is piped"));
        let input = child.stdin.take();
        Self { child, input, said }
    }

    fn ask(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is piped");
        writeln!(input, "{line}").unwrap();
    }

    /// Ends its input; whether it was content.
    fn end(mut self) -> bool {
        drop(self.input.take());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Either fails only where it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_transaction_of_postgresql_stays_open_through_ten() {
    let folder = TempDir::new().unwrap();
    let server = postgres(folder.path());
    let evenkeel = Evenkeel::start(&with_health("workers: 2", "", &[server.address()]));
    let psql = || {
        let mut command = Command::new(postgres_tool("psql"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-XAtq", "-p"]);
        command.arg(evenkeel.address().port().to_string());
        command.args(["-v", "ON_ERROR_STOP=1", "postgres"]);
        command
    };
    eventually("PostgreSQL takes queries", || {
        let asked = psql().args(["-c", "select 1"]).output();
        asked.unwrap().status.success()
    });
    succeed(psql().args(["-c", "create table kept (number int)"]));
    let mut session = Session::start(&mut psql());
    session.ask(
        "begin; create temporary table own (number int); select 'begun ' || pg_backend_pid();",
    );
    let begun = session.said.wait_for("begun ");
    let process = begun.trim_start_matches("begun ").to_owned();
    for number in 1..=UPGRADES {
        session.ask(&format!(
            "insert into kept values ({number}); insert into own values ({number});"
        ));
        evenkeel.upgrade();
        session.ask(
            "select 'has ' || count(*) || ' ' || (select count(*) from own) || ' ' || \
             pg_backend_pid() from kept;",
        );
        session
            .said
            .wait_for(&format!("has {number} {number} {process}"));
        // Nobody else sees it yet.
        let others = succeed(psql().args(["-c", "select count(*) from kept"]));
        assert_eq!(others.trim(), "0");
    }
    session.ask("commit;");
    assert!(session.end());
    let sum = succeed(psql().args(["-c", "select sum(number) from kept"]));
    assert_eq!(sum.trim(), "55");
}

#[test]
fn a_subscriber_of_redis_gets_every_message_through_ten() {
    let folder = TempDir::new().unwrap();
    let server = redis(folder.path());
    let evenkeel = Evenkeel::start(&with_pool("workers: 2", "", &[server.address()]));
    let cli = |port: u16| {
        let mut command = Command::new(tool("redis-cli"));
        command.args(["-p", &port.to_string()]);
        command
    };
    let through = evenkeel.address().port();
    let subscriber = Session::start(cli(through).args(["subscribe", "news"]));
    subscriber.said.wait_for("subscribe");
    let mut publisher = Session::start(&mut cli(through));
    let mut published = 0;
    for _ in 0..UPGRADES {
        std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| evenkeel.upgrade());
            while !upgrade.is_finished() {
                published += 1;
                publisher.ask(&format!("publish news message-{published}."));
                crate::harness::pause(std::time::Duration::from_millis(2));
            }
            upgrade.join().unwrap();
        });
        subscriber.said.wait_for(&format!("message-{published}."));
    }
    let all = subscriber.said.all();
    let got: Vec<_> = all
        .iter()
        .filter(|line| line.starts_with("message-"))
        .collect();
    let expected: Vec<_> = (1..=published)
        .map(|number| format!("message-{number}."))
        .collect();
    assert_eq!(got, expected.iter().collect::<Vec<_>>());
    assert!(publisher.end());
}
