//! Checks by a program: how it ends, what it says, what it finds, and what becomes of what it has
//! started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::checks::{self, Checks};
use crate::harness::eventually;
use crate::harness::peers::Refusing;
use crate::harness::proc::Proc;
use crate::harness::program::{Evenkeel, binary};

/// A folder for programs and for what they leave.
struct Programs(TempDir);

impl Programs {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a shell script; the keys of a check that runs it with its folder as the argument.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.keys(name)
    }

    fn keys(&self, name: &str) -> String {
        let (path, folder) = (self.path(name), self.0.path());
        format!(
            "type: exec, command: [\"{}\", \"{}\"]",
            path.display(),
            folder.display()
        )
    }

    /// A file that a program has written, once it has a whole line.
    fn line(&self, name: &str) -> String {
        let mut text = String::new();
        eventually("a program has written its file", || {
            text = fs::read_to_string(self.path(name)).unwrap_or_default();
            text.ends_with('\n')
        });
        text.trim_end().to_owned()
    }
}

/// Whether a process runs; a zombie does not.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// The ids of a process' children, zombies as well, whichever thread began them.
fn children(evenkeel: &Evenkeel) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", evenkeel.pid())).unwrap();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
    let lists = tasks.flatten().filter_map(|task| of_task(task).ok());
    lists
        .flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter(|pid| !pid.is_empty())
        .collect()
}

/// What `ls -l /proc/self/fd` has shown beyond the standard streams: neither a file, which the shell
/// and `ls` open, nor what this test was given itself and has handed on.
fn foreign(listing: &str) -> Vec<String> {
    let own = Proc(std::process::id()).descriptors();
    let links = listing.lines().filter_map(|line| {
        let (name, link) = line.split_once(" -> ")?;
        let descriptor: u32 = name.rsplit(' ').next()?.parse().ok()?;
        (descriptor > 2 && !link.starts_with('/')).then(|| link.to_owned())
    });
    links
        .filter(|link| !own.iter().any(|(_, it)| it == link))
        .collect()
}

#[test]
fn the_end_and_the_first_line_are_the_answer() {
    let programs = Programs::new();
    let server = Refusing::new().address();
    let good = programs.script("good", "echo; echo '  lag 0 s  '; echo more");
    let bad = programs.script("bad", "echo replication lag 90 s >&2; exit 2");
    let signal = programs.script("signal", "kill -9 $$");
    let flood = programs.script(
        "flood",
        "head -c 5000000 /dev/zero | tr '\\0' x; printf '\\033[2J'",
    );
    let spawned = programs.script("spawned", "sleep 600 & echo well");
    let cut = programs.script("cut", "exec >&- 2>&-; sleep 0.3; exit 3");
    fs::write(programs.path("text"), "#!/bin/sh\n").unwrap();
    let checks = Checks::start(&[
        ("good", &good, server),
        ("bad", &bad, server),
        ("signal", &signal, server),
        ("flood", &flood, server),
        ("spawned", &spawned, server),
        ("cut", &cut, server),
        ("text", &programs.keys("text"), server),
        ("missing", &programs.keys("none"), server),
        (
            "words",
            "type: exec, command: [/bin/echo, \"$PATH `id`\", '; exit 1']",
            server,
        ),
    ]);
    for (pool, state, words) in [
        ("good", "up", "exit 0: lag 0 s"),
        ("bad", "down", "exit 2: replication lag 90 s"),
        ("signal", "down", "killed by signal 9"),
        ("flood", "up", "exit 0: xxxxxxxx"),
        ("spawned", "up", "exit 0: well"),
        ("cut", "down", "exit 3"),
        ("text", "down", "cannot run the program: Permission denied"),
        ("missing", "down", "cannot run the program: No such file"),
        ("words", "up", "exit 0: $PATH `id` ; exit 1"),
    ] {
        checks.expect(pool, state, words);
    }
    fs::remove_file(programs.path("good")).unwrap();
    checks.expect("good", "down", "cannot run the program");
    programs.script("good", "exit 0");
    checks.expect("good", "up", "exit 0");
}

#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_has_started() {
    let programs = Programs::new();
    // It does not listen to mere requests, and its child holds the pipe.
    let hangs = "trap '' TERM HUP INT\nsleep 600 & echo $! >$1/grandchild\necho waiting\nwait";
    let keys = programs.script("hangs", hangs);
    let checks = Checks::start(&[("p", &keys, Refusing::new().address())]);
    let grandchild = programs.line("grandchild");
    checks.expect("p", "down", "timeout after 1s (the program was killed)");
    eventually("what it had started is gone", || !is_alive(&grandchild));
    programs.script("hangs", "exit 0");
    checks.expect("p", "up", "exit 0");
    checks.wait_for_checks("p", 5.0);
    eventually("no zombies are left", || {
        children(checks.evenkeel()).len() <= 1
    });
}

#[test]
fn what_is_left_behind_is_killed_when_the_program_ends() {
    let programs = Programs::new();
    let keys = programs.script("leaves", "sleep 600 & echo $! >$1/left; exit 0");
    let checks = Checks::start(&[("p", &keys, Refusing::new().address())]);
    checks.expect("p", "up", "exit 0");
    let left = programs.line("left");
    eventually("what was left is gone", || !is_alive(&left));
}

#[test]
fn a_program_finds_its_server_and_nothing_of_ours() {
    let programs = Programs::new();
    let text = "[ -e $1/done ] && exit 0\nenv | sort >$1/env\npwd >$1/pwd\nls -l /proc/self/fd >$1/fd\ncat >$1/stdin\n\
                grep -E 'Sig(Blk|Ign)' /proc/self/status >$1/signals\necho done >$1/done";
    let keys = programs.script("looks", text);
    let server = Refusing::new().address();
    // Children would be thrown away, as some supervisors have it: `sh` hands that on.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("evenkeel.yaml");
    let config = checks::config(&[("db", &keys, server)]);
    let admin = format!(
        "admin: {{socket: {}/admin.sock}}\n",
        folder.path().display()
    );
    fs::write(&file, config + &admin).unwrap();
    let mut command = Command::new("/bin/sh");
    let exec = "trap '' CHLD; exec \"$0\" run -c \"$1\"";
    command.args(["-c", exec]).arg(binary()).arg(&file);
    command.env("SECRET", "ours").arg0("sh");
    command.stderr(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    let evenkeel = Evenkeel::spawn(command, folder);
    evenkeel.errors().wait_for("server db/s is up: exit 0");
    programs.line("done");
    let env = programs.line("env");
    for line in [
        "EVENKEEL_POOL=db",
        "EVENKEEL_SERVER=s",
        "EVENKEEL_HOST=127.0.0.1",
        &format!("EVENKEEL_PORT={}", server.port()),
        &format!("EVENKEEL_ADDRESS={server}"),
    ] {
        assert!(env.lines().any(|found| found == line), "{line}: {env}");
    }
    assert!(env.contains("PATH=/") && !env.contains("SECRET"), "{env}");
    assert_eq!(programs.line("pwd"), "/");
    assert_eq!(foreign(&programs.line("fd")), Vec::<String>::new());
    assert_eq!(fs::read_to_string(programs.path("stdin")).unwrap(), "");
    let signals = programs.line("signals");
    // Signals from 32 on are the C library's own.
    let is_plain = |line: &str| line.ends_with("00000000") || line.ends_with("80000000");
    assert_eq!(signals.lines().count(), 2);
    assert!(signals.lines().all(is_plain), "{signals}");
}

#[test]
fn programs_end_with_evenkeel() {
    let programs = Programs::new();
    let keys = programs.script("waits", "echo $$ >$1/pid; exec sleep 600");
    let config = checks::config(&[("p", &keys, Refusing::new().address())]);
    // Listeners wait for the first answer, which never comes.
    let mut evenkeel = Evenkeel::launch(&config.replace("timeout: 1s", "timeout: 60s"));
    let pid = programs.line("pid");
    assert!(is_alive(&pid));
    evenkeel.signal("TERM");
    evenkeel.exit();
    eventually("the program is gone", || !is_alive(&pid));
}

#[test]
fn a_check_that_is_taken_away_ends_its_program() {
    let programs = Programs::new();
    let server = Refusing::new().address();
    let quick = programs.script("check", "exit 0");
    let checks = Checks::start(&[("p", &quick, server)]);
    checks.expect("p", "up", "exit 0");
    let slow = "[ -e $1/slow ] || exit 0\necho $$ >$1/pid\nexec sleep 600";
    programs.script("next", slow);
    fs::rename(programs.path("next"), programs.path("check")).unwrap();
    let config = checks::config(&[("p", &quick, server)]).replace("timeout: 1s", "timeout: 60s");
    checks.evenkeel().rewrite(&config);
    checks.evenkeel().signal("HUP");
    fs::write(programs.path("slow"), "").unwrap();
    let pid = programs.line("pid");
    checks
        .evenkeel()
        .rewrite(&config.replace(&quick, "type: tcp"));
    checks.evenkeel().signal("HUP");
    checks.expect("p", "down", "connection refused");
    eventually("the program is gone", || !is_alive(&pid));
    eventually("it is reaped", || children(checks.evenkeel()).is_empty());
}

#[test]
fn many_programs_wait_for_their_turn() {
    let programs = Programs::new();
    // Each leaves a name of its own while it runs.
    let text = "mkdir $1/run.$$; ls -d $1/run.* | wc -l >$1/count.$$; sleep 0.2; rmdir $1/run.$$";
    let keys = programs.script("busy", text);
    let server = Refusing::new().address();
    let names: Vec<String> = (0..80).map(|index| format!("p{index}")).collect();
    let pools: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), keys.as_str(), server))
        .collect();
    let config = checks::config(&pools).replace("timeout: 1s", "timeout: 19s");
    let evenkeel = Evenkeel::start(&config.replace("interval: 100ms", "interval: 20s"));
    for name in &names {
        evenkeel
            .errors()
            .wait_for(&format!("server {name}/s is up: exit 0"));
    }
    let entries = fs::read_dir(programs.0.path()).unwrap().flatten();
    let counts = entries.filter(|it| it.file_name().to_string_lossy().starts_with("count."));
    let counts: Vec<usize> = counts
        .map(|it| {
            fs::read_to_string(it.path())
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(counts.len(), 80);
    assert!(counts.iter().all(|count| *count <= 64), "{counts:?}");
}
