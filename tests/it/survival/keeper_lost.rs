//! A keeper is a process of its own: what it has of the one that started it, and what comes of it when
//! it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Line, kill, wait_for_kept};
use crate::harness::eventually;
use crate::harness::peers::ping;
use crate::harness::program::{Evenkeel, binary, send_signal};

#[test]
fn one_that_was_killed_is_started_again_and_gets_everything() {
    let line = Line::new();
    let evenkeel = line.start("", "");
    let mut pairs: Vec<_> = (0..20).map(|_| evenkeel.pair(&line.server)).collect();
    for _ in 0..2 {
        let keeper = line.keeper();
        wait_for_kept(&keeper, pairs.len());
        send_signal(keeper.0, "KILL");
        eventually("it is gone", || keeper.is_gone());
        // One that comes while there is none.
        pairs.push(evenkeel.pair(&line.server));
    }
    wait_for_kept(&line.keeper(), pairs.len());
    // Nobody is left unwaited for.
    let keeper = line.keeper().0;
    eventually("one child", || evenkeel.proc().children() == [keeper]);
    kill(evenkeel);
    let evenkeel = line.start("", "");
    evenkeel.errors().wait_for("took up 22 connections");
    for (client, serving) in &mut pairs {
        ping(client, serving);
    }
}

#[test]
fn it_has_nothing_of_evenkeel_s_and_does_not_mind_its_group() {
    let line = Line::new();
    // What a shell has opened for evenkeel, whose end somebody may wait for; and a group of its own, as
    // of a terminal.
    let mut command = Command::new("sh");
    let script = "umask 077; exec \"$@\" 7</dev/zero";
    command.args(["-c", script, "sh"]).arg(binary());
    command.process_group(0);
    let mut evenkeel = Evenkeel::launch_reading(&line.config("", ""), command, Stdio::null());
    evenkeel.errors().wait_for("ready: ");
    assert_eq!(evenkeel.proc().count("/dev/zero"), 1);
    let (client, _serving) = evenkeel.pair(&line.server);
    let keeper = line.keeper();
    wait_for_kept(&keeper, 1);
    let descriptors = keeper.descriptors();
    let is_known = |link: &str| {
        let known = [
            "/dev/null",
            "socket:",
            "anon_inode:[eventpoll]",
            "/memfd:evenkeel",
        ];
        known.iter().any(|known| link.starts_with(known))
    };
    assert!(
        descriptors.iter().all(|(_, link)| is_known(link)),
        "{descriptors:?}"
    );
    assert_eq!(
        fs::read_link(format!("/proc/{}/cwd", keeper.0)).unwrap(),
        Path::new("/")
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", keeper.0)).unwrap();
    let open = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let [.., soft, hard, _] = open.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{open}");
    };
    assert_eq!(soft, hard);
    let mode = fs::metadata(line.keeper_place())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // As Ctrl-C does it; a second one does not wait for connections.
    for _ in 0..2 {
        let group = format!("-{}", evenkeel.pid());
        assert!(
            Command::new("kill")
                .args(["-INT", "--", &group])
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(evenkeel.exit().success());
    drop(client);
    eventually("it ends with evenkeel", || line.keepers().is_empty());
}
