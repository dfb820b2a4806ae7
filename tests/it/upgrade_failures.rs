//! Upgrades that come to nothing, at each step: the process serves on as if nothing had happened, says
//! why, leaves nothing behind, and can be asked again.
//!
//! Whoever takes over badly is this test program itself: [`fake_successor`] is a test that, told so by
//! the environment, speaks the protocol as far as one step and fails there.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use evenkeel::handover::dialogue::{Complete, Ready, Refused, Took, receive_large, receive_world};
use evenkeel::handover::world::Counts;
use evenkeel::handover::{Connections, Hello, Message, Receiver, Sender, channel};
use serde_json::json;

use crate::harness::peers::{Peer, Refusing};
use crate::harness::program::{Evenkeel, Holding, binary};
use crate::harness::pulse::Pulse;
use crate::harness::servers::{Greeter, greeted, visits};
use crate::harness::systemd::Systemd;
use crate::harness::{DEADLINE, eventually, pause, with_health};

/// Tells [`fake_successor`] where to fail.
const STEP: &str = "EVENKEEL_TEST_STEP";
const HELD: usize = 40;

/// A process that is served through, and what must be as it was.
struct Scene {
    evenkeel: Evenkeel,
    config: String,
    held: Vec<TcpStream>,
    pulse: Pulse,
    before: Holding,
    _server: Greeter,
}

impl Scene {
    fn open() -> Self {
        Self::open_with(Command::new(binary()))
    }

    fn open_with(command: Command) -> Self {
        let server = Greeter::listen(b's');
        let pool = "    health: {type: tcp, interval: 1h}";
        let config = with_health("workers: 2", pool, &[server.address()]);
        let evenkeel = Evenkeel::launch_with(&config, command);
        evenkeel.errors().wait_for("ready: ");
        let held = (0..HELD).map(|_| greeted(evenkeel.address()).0).collect();
        let pulse = Pulse::start(evenkeel.address());
        // Whatever an answer needs for the first time is there.
        evenkeel.api().status();
        let before = evenkeel.holding_at_rest();
        Self {
            evenkeel,
            config,
            held,
            pulse,
            before,
            _server: server,
        }
    }

    /// A program of the shell, as the body of a request that asks for an upgrade to it. Written by a
    /// program of its own: nobody runs a file that a process of many threads is writing.
    fn script(&self, text: &str) -> String {
        let path = self.evenkeel.folder().join("successor.sh");
        let mut write = Command::new("sh");
        write
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path);
        let mut child = write.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().expect("it is piped");
        write!(input, "#!/bin/sh\n{text}\n").unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        json!({ "binary": path }).to_string()
    }

    /// The request for an upgrade that fails at a step of the protocol.
    fn fake(&self, step: &str) -> String {
        let program = env::current_exe().unwrap().display().to_string();
        let test = concat!(module_path!(), "::fake_successor");
        let (_, test) = test.split_once("::").expect("a crate's name stands before");
        self.script(&format!(
            "{STEP}={step} exec {program} --exact {test} --nocapture --test-threads 1"
        ))
    }

    /// Nobody has noticed, and nothing is left.
    #[track_caller]
    fn serves_on(&mut self) {
        let pid = self.evenkeel.pid();
        assert_eq!(self.evenkeel.api().status()["pid"], pid);
        self.pulse.goes_on();
        for stream in &mut self.held {
            stream.write_all(b"still there").unwrap();
            stream.expect(b"still there");
        }
        assert_eq!(visits(self.evenkeel.address(), 3), "sss");
        eventually("no child is left, dead or alive", || {
            self.evenkeel.proc().children().is_empty()
        });
        assert_eq!(self.evenkeel.processes(), [pid]);
        self.evenkeel.back_to(&self.before);
    }

    /// An upgrade that fails, with a reason that has all `parts`.
    #[track_caller]
    fn fails(&mut self, body: &str, parts: &[&str]) {
        let before = self.failed_so_far();
        let reason = self.evenkeel.upgrade_fails(body);
        assert_eq!(self.failed_so_far(), before + 1, "it is counted");
        for part in parts {
            assert!(reason.contains(part), "no {part:?} in: {reason}");
        }
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
        self.serves_on();
    }

    /// Upgrades that have failed, as a scrape has it.
    fn failed_so_far(&self) -> u64 {
        let metrics = self.evenkeel.api().ask("GET", "/metrics").body;
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix("evenkeel_upgrades_failed_total "));
        count.unwrap().parse().unwrap()
    }

    /// An upgrade works as if none had failed.
    #[track_caller]
    fn upgrades(mut self) {
        let failed = self.failed_so_far();
        self.evenkeel.upgrade();
        assert_eq!(self.failed_so_far(), failed, "the count is handed on");
        self.serves_on();
        self.pulse.end();
        let visited = self.evenkeel.access().len();
        drop(self.held);
        let ends = self.evenkeel.ends(visited + HELD);
        assert!(
            ends.iter().all(|end| end.end() == "client_closed"),
            "{ends:?}"
        );
    }
}

#[test]
fn a_file_with_a_mistake_is_told_with_line_and_column() {
    let mut scene = Scene::open();
    scene.evenkeel.rewrite("listeners: [");
    scene.fails("{}", &["evenkeel.yaml:"]);
    scene
        .evenkeel
        .rewrite(&scene.config.replace("workers: 2", "wrokers: 2"));
    scene.fails("{}", &["evenkeel.yaml:1:1", "wrokers"]);
    fs::remove_file(scene.evenkeel.file()).unwrap();
    scene.fails("{}", &["evenkeel.yaml"]);
    scene.evenkeel.rewrite(&scene.config);
    scene.upgrades();
}

#[test]
fn an_address_that_is_taken_is_told() {
    let mut scene = Scene::open();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("listeners:\n  more: {{bind: \"{address}\", pool: web}}\n");
    scene
        .evenkeel
        .rewrite(&scene.config.replace("listeners:\n", &more));
    scene.fails("{}", &["cannot bind", &address.to_string()]);
    scene.evenkeel.rewrite(&scene.config);
    scene.upgrades();
}

#[test]
fn a_program_that_is_none_is_told() {
    let mut scene = Scene::open();
    let binary = |path: PathBuf| json!({ "binary": path }).to_string();
    let file = scene.evenkeel.file();
    let folder = scene.evenkeel.folder().to_owned();
    scene.fails(&binary(folder.join("missing")), &["missing"]);
    scene.fails(&binary(file), &["evenkeel.yaml"]);
    scene.fails(&binary(folder), &[]);
    scene.fails(&binary("/bin/true".into()), &[]);
    for script in [
        "exit 1",
        "kill -9 $$",
        "echo nonsense >&0; exit 3",
        "echo nonsense >&0; cat",
    ] {
        let body = scene.script(script);
        scene.fails(&body, &[]);
    }
    scene.upgrades();
}

#[test]
fn a_program_that_says_nothing_is_not_waited_for_for_ever() {
    let mut scene = Scene::open();
    let body = scene.script("exec sleep 60");
    scene.fails(&body, &[]);
    scene.upgrades();
}

#[test]
fn a_successor_that_fails_at_any_step_changes_nothing() {
    let mut scene = Scene::open();
    let steps = [
        ("wrong_version", "version"),
        ("other_magic", ""),
        ("after_hello", ""),
        ("after_world", ""),
        ("refused", "the moon is full"),
        ("after_ready", ""),
        ("amid_connections", ""),
        ("before_took", ""),
        ("refused_late", "the tide is out"),
        ("wrong_count", ""),
    ];
    for (step, part) in steps {
        eprintln!("--- a successor that fails: {step}");
        let body = scene.fake(step);
        scene.fails(&body, &[part]);
    }
    scene.upgrades();
}

#[test]
fn a_successor_that_takes_all_and_says_nothing_gives_it_back() {
    let mut scene = Scene::open();
    let body = scene.fake("silent");
    scene.fails(&body, &[]);
    scene.upgrades();
}

/// Seconds go by in which the main thread does nothing but wait for it.
#[test]
fn the_watchdog_is_fed_while_a_successor_says_nothing() {
    let systemd = Systemd::at_a_path();
    let mut command = Command::new(binary());
    command.env("NOTIFY_SOCKET", systemd.address());
    command.env("WATCHDOG_USEC", "1500000");
    let mut scene = Scene::open_with(command);
    let hearing = thread::spawn(move || {
        while !systemd.hear().contains("STATUS=upgrading") {}
        let until_failed = std::iter::from_fn(|| {
            let heard = systemd.hear();
            (!heard.contains("STATUS=upgrade failed")).then_some(heard)
        });
        until_failed.filter(|heard| heard == "WATCHDOG=1").count()
    });
    let body = scene.fake("silent");
    scene.fails(&body, &["was silent for"]);
    let fed = hearing.join().unwrap();
    assert!(fed >= 5, "{fed} times");
}

/// It has said that it holds everything, and not that it serves: nothing has moved yet.
#[test]
fn a_successor_that_dies_when_it_has_taken_all_changes_nothing() {
    let mut scene = Scene::open();
    for _ in 0..3 {
        let body = scene.fake("dies_after_took");
        scene.fails(&body, &[]);
    }
    scene.upgrades();
}

#[test]
fn a_successor_without_descriptors_is_told() {
    let mut scene = Scene::open();
    let program = binary().display().to_string();
    let body = scene.script(&format!("ulimit -n 64; exec {program} \"$@\""));
    scene.fails(&body, &[]);
    scene.upgrades();
}

/// An upgrade that waits for a file before it goes on.
struct Waiting {
    body: String,
    go: PathBuf,
    begun: PathBuf,
}

impl Waiting {
    fn new(scene: &Scene) -> Self {
        let [go, begun] = ["go", "begun"].map(|name| scene.evenkeel.folder().join(name));
        let program = binary().display().to_string();
        let body = scene.script(&format!(
            "touch {}; while [ ! -e {} ]; do sleep 0.05; done; exec {program} \"$@\"",
            begun.display(),
            go.display()
        ));
        Self { body, go, begun }
    }

    fn await_beginning(&self) {
        eventually("the upgrade is under way", || self.begun.exists());
    }
}

#[test]
fn while_one_is_under_way_other_changes_are_refused_and_the_rest_goes_on() {
    let mut scene = Scene::open();
    let waiting = Waiting::new(&scene);
    let old = scene.evenkeel.proc();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            scene
                .evenkeel
                .api()
                .send("POST", "/api/v1/upgrade", &waiting.body)
        });
        waiting.await_beginning();
        let api = scene.evenkeel.api();
        for path in ["/api/v1/upgrade", "/api/v1/reload"] {
            let answer = api.ask("POST", path);
            assert!([409, 503].contains(&answer.status), "{path}: {answer:?}");
            assert!(answer.body.contains("upgrade"), "{answer:?}");
        }
        let answer = api.send("PATCH", "/api/v1/pools/web", r#"{"algorithm":"random"}"#);
        assert!([409, 503].contains(&answer.status), "{answer:?}");
        assert_eq!(
            api.get("/api/v1/connections").as_array().unwrap().len(),
            HELD + 1
        );
        assert_eq!(api.ask("GET", "/readyz").status, 200);
        scene.pulse.goes_on();
        assert_eq!(visits(scene.evenkeel.address(), 2), "ss");
        fs::write(&waiting.go, "").unwrap();
        first.join().unwrap().expect(200);
    });
    scene.evenkeel.follow(old);
    scene.serves_on();
    let algorithm = scene.evenkeel.api().get("/api/v1/pools/web")["algorithm"].clone();
    assert_eq!(algorithm, "least_connections");
    scene.upgrades();
}

#[test]
fn a_stop_signal_ends_it_and_drains() {
    let scene = Scene::open();
    let waiting = Waiting::new(&scene);
    let mut evenkeel = scene.evenkeel;
    let said = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut visit = evenkeel.api().visit();
            let head = format!("Content-Length: {}", waiting.body.len());
            visit.ask(
                "POST",
                "/api/v1/upgrade",
                &[&head, "Content-Type: application/json"],
            );
            visit.send(waiting.body.as_bytes());
            visit.rest()
        });
        waiting.await_beginning();
        evenkeel.signal("TERM");
        drop((scene.held, scene.pulse));
        asked.join().unwrap()
    });
    assert!(!said.contains(" 200 "), "{said}");
    let status = evenkeel.exit();
    assert_eq!(status.code(), Some(0));
    eventually("nobody is left", || evenkeel.processes().is_empty());
}

#[test]
fn a_hangup_signal_during_it_is_for_whoever_serves_then() {
    let mut scene = Scene::open();
    let waiting = Waiting::new(&scene);
    let old = scene.evenkeel.proc();
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            scene
                .evenkeel
                .api()
                .send("POST", "/api/v1/upgrade", &waiting.body)
        });
        waiting.await_beginning();
        scene.evenkeel.signal("HUP");
        scene.pulse.goes_on();
        fs::write(&waiting.go, "").unwrap();
        asked.join().unwrap().expect(200);
    });
    scene.evenkeel.follow(old);
    scene.serves_on();
    scene.upgrades();
}

#[test]
fn a_reload_that_awaits_its_confirmation_comes_first() {
    let mut scene = Scene::open();
    let confirm = r#"{"confirm":"1h"}"#;
    let api = scene.evenkeel.api();
    api.send("POST", "/api/v1/reload", confirm).expect(200);
    assert_eq!(api.send("POST", "/api/v1/upgrade", "{}").status, 409);
    scene.serves_on();
    api.ask("POST", "/api/v1/confirm").expect(200);
    scene.upgrades();
}

#[test]
fn a_server_that_is_down_in_the_new_file_refuses_nothing() {
    let mut scene = Scene::open();
    let down = Refusing::new();
    let list = format!("    servers:\n      - {}\n", down.address());
    let config = scene.config.replace("    servers:\n", &list);
    scene.evenkeel.rewrite(&config);
    scene.evenkeel.upgrade();
    scene.serves_on();
    scene.upgrades();
}

/// No test of its own: see the top. Without a step it has nothing to do.
#[test]
fn fake_successor() {
    let Some(step) = env::var_os(STEP) else {
        return;
    };
    let step = step.into_string().unwrap();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let (outlet, inlet) = channel(UnixStream::from(socket), DEADLINE).unwrap();
    play(&step, outlet, inlet);
    // At once, as one that is killed: no thread of the test harness has a last word.
    std::process::exit(3);
}

/// Each line is one more step; whoever has come to the step that fails returns.
fn play(step: &str, mut outlet: Sender, mut inlet: Receiver) {
    let mut say = Hello::ours();
    match step {
        "wrong_version" => (say.version, say.oldest_reader) = (999, 999),
        "other_magic" => say = Hello::default(),
        _ => {}
    }
    outlet.send(&say, &[]).unwrap();
    if step == "after_hello" {
        return;
    }
    if ["wrong_version", "other_magic"].contains(&step) {
        // Whoever listens has no more to say.
        assert!(inlet.receive().is_err() || inlet.receive().is_err());
        return;
    }
    inlet.expect::<Hello>().unwrap();
    let (world, descriptors) = receive_world(&mut inlet).unwrap();
    assert_eq!(world.descriptors(), descriptors.len());
    match step {
        "after_world" => return,
        "refused" => return refuse(&mut outlet, "the moon is full"),
        _ => outlet.send(&Ready {}, &[]).unwrap(),
    }
    if step == "after_ready" {
        return;
    }
    receive_large::<Counts>(&mut inlet).unwrap();
    let Some(count) = take(&mut inlet, step == "amid_connections") else {
        return;
    };
    assert!(count > 0);
    match step {
        "before_took" => return,
        "refused_late" => return refuse(&mut outlet, "the tide is out"),
        "silent" => pause(Duration::from_secs(60)),
        _ => {}
    }
    let connections = count + u64::from(step == "wrong_count");
    outlet.send(&Took { connections }, &[]).unwrap();
    if step == "wrong_count" {
        assert!(inlet.receive().is_err(), "it was not told to go");
    }
}

fn refuse(outlet: &mut Sender, reason: &str) {
    let reason = reason.to_owned();
    outlet.send(&Refused { reason }, &[]).unwrap();
}

/// Takes connections up to the end, or only some; how many there are.
fn take(inlet: &mut Receiver, only_some: bool) -> Option<u64> {
    let mut taken = 0;
    loop {
        let frame = inlet.receive().unwrap();
        if frame.kind() == Complete::KIND {
            let (complete, _) = frame.read::<Complete>().unwrap();
            assert_eq!(complete.connections, taken);
            return Some(taken);
        }
        let (some, descriptors) = frame.read::<Connections>().unwrap();
        let wanted: usize = some.connections.iter().map(|it| it.descriptors()).sum();
        assert_eq!(descriptors.len(), wanted);
        taken += some.connections.len() as u64;
        if only_some && taken > 0 {
            return None;
        }
    }
}
