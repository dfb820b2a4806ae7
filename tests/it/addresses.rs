//! Addresses of every kind at both sides: unix sockets with a file and without one, IPv6, both
//! families at once, ranges of ports, and our own addresses towards servers.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use socket2::Socket;
use tempfile::TempDir;

use crate::harness::blocks::{Blocks, Finish};
use crate::harness::dial::{accept, dial, listen, place, unix};
use crate::harness::eventually;
use crate::harness::peers::Peer;
use crate::harness::program::{Evenkeel, binary};
use crate::harness::tools::{as_nobody, tool};

const ANY: &str = "127.0.0.1:0";
const BULK_BYTES: u64 = 30_000_000;

/// A listener `web` at `bind`, and a pool `web` of `servers` with lines of its own.
fn config(bind: &str, pool: &str, servers: &[&str]) -> String {
    let list: String = servers
        .iter()
        .map(|s| format!("      - \"{s}\"\n"))
        .collect();
    format!(
        "workers: 2\nlisteners:\n  web: {{bind: {bind}, pool: web}}\n\
         pools:\n  web:\n    health: off\n{pool}    servers:\n{list}"
    )
}

/// Where a client connects to the listener, which is at `bind`.
fn door(evenkeel: &Evenkeel, bind: &str) -> String {
    if bind.starts_with("unix:") {
        return bind.to_owned();
    }
    evenkeel.address().to_string()
}

/// A connection through it: the client's socket and the server's.
#[track_caller]
fn pair(door: &str, server: &Socket) -> (Socket, Socket) {
    let client = dial(door);
    (client, accept(server))
}

#[track_caller]
fn exchange(mut client: &Socket, mut server: &Socket) {
    let mut buffer = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, *b"ping");
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, *b"pong");
}

/// Both directions at once, then both ends in order.
#[track_caller]
fn carry_bulk(client: &Socket, server: &Socket) {
    thread::scope(|scope| {
        for (mut socket, sends, receives) in [(client, 1, 2), (server, 2, 1)] {
            scope.spawn(move || {
                Blocks::new(sends).send(&mut socket, BULK_BYTES).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let received = Blocks::new(receives).receive_to_end(&mut socket);
                assert_eq!((received.bytes, received.finish), (BULK_BYTES, Finish::Fin));
            });
        }
    });
}

#[test]
fn bulk_arrives_whole_over_unix_sockets_at_either_side_and_at_both() {
    let folder = TempDir::new().unwrap();
    let name = format!("unix:@evenkeel-it-{}", std::process::id());
    let combinations = [
        (unix(folder.path(), "front-1"), ANY.to_owned()),
        (ANY.to_owned(), unix(folder.path(), "back-2")),
        (
            unix(folder.path(), "front-3"),
            unix(folder.path(), "back-3"),
        ),
        (format!("{name}-front"), format!("{name}-back")),
    ];
    for (bind, back) in combinations {
        let server = listen(&back, 16);
        let back = match back.starts_with("unix:") {
            true => back,
            false => place(&server),
        };
        let evenkeel = Evenkeel::start(&config(&format!("\"{bind}\""), "", &[&back]));
        let (client, serving) = pair(&door(&evenkeel, &bind), &server);
        exchange(&client, &serving);
        carry_bulk(&client, &serving);
        let end = evenkeel.end();
        assert!(end.end().ends_with("_closed"), "{end:?}");
        assert_eq!(end.bytes("upstream_bytes"), BULK_BYTES + 4);
        assert_eq!(end.bytes("downstream_bytes"), BULK_BYTES + 4);
        let is_tcp = bind == ANY;
        assert_eq!(end.field("client") == "unix:", !is_tcp, "{end:?}");
        assert_eq!(end.field("server"), back);
        let said = evenkeel.errors().text();
        assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");
    }
}

#[test]
fn ends_pass_a_unix_socket_in_both_directions() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let server = listen(&back, 16);
    let evenkeel = Evenkeel::start(&config(&front, "", &[&back]));
    // Half-close: the client has said all, and still gets its answer.
    let (client, serving) = pair(&front, &server);
    (&client).write_all(b"all").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    (&serving).read_to_string(&mut said).unwrap();
    assert_eq!(said, "all");
    (&serving).write_all(b"answer").unwrap();
    drop(serving);
    said.clear();
    (&client).read_to_string(&mut said).unwrap();
    assert_eq!(said, "answer");
    assert_eq!(evenkeel.end().end(), "client_closed");
    // A server that goes without having read what was sent resets, in unix sockets as in TCP.
    let (client, serving) = pair(&front, &server);
    (&client).write_all(b"unread").unwrap();
    eventually("it has arrived", || {
        serving.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok()
    });
    drop(serving);
    // The kernel tells a unix peer so only where it leaves bytes unread itself.
    let mut rest = Vec::new();
    let outcome = (&client).read_to_end(&mut rest);
    assert!(outcome.is_err() || rest.is_empty());
    assert_eq!(evenkeel.ends(2)[1].end(), "server_reset");
}

#[test]
fn the_file_is_open_to_all_and_goes_with_the_listener() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let path = folder.path().join("front");
    // What a process leaves behind that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let server = listen(&back, 16);
    let mut evenkeel = Evenkeel::start(&config(&front, "", &[&back]));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let (client, serving) = pair(&front, &server);
    exchange(&client, &serving);
    let status = evenkeel.api().status();
    assert_eq!(status["listeners"]["web"]["bind"][0], front);
    let servers = &status["pools"]["web"]["servers"];
    let shown = servers.as_object().unwrap().values().next().unwrap();
    assert_eq!(shown["address"], back);
    let list = evenkeel.api().get("/api/v1/connections");
    assert_eq!(list[0]["client"], "unix:");
    for command in ["status", "connections"] {
        let said = evenkeel.command(&[command]);
        assert!(said.status.success());
        assert!(String::from_utf8_lossy(&said.stdout).contains("unix:"));
    }
    evenkeel.signal("TERM");
    // At once, so that nobody comes any more; who is there goes on.
    eventually("the file is gone", || !path.exists());
    exchange(&client, &serving);
    drop((client, serving));
    assert!(evenkeel.exit().success());
}

#[test]
fn a_living_socket_and_a_file_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("front");
    let living = UnixListener::bind(&path).unwrap();
    let front = unix(folder.path(), "front");
    let mut evenkeel = Evenkeel::launch(&config(&front, "", &["127.0.0.1:9"]));
    assert_eq!(evenkeel.exit().code(), Some(1));
    let said = evenkeel.errors().text();
    assert!(said.contains("another program answers there"), "{said}");
    drop(living);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let mut evenkeel = Evenkeel::launch(&config(&front, "", &["127.0.0.1:9"]));
    assert_eq!(evenkeel.exit().code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_unix_server_that_cannot_be_had_is_a_failed_try_and_another_one_serves() {
    let folder = TempDir::new().unwrap();
    let (full, well) = (unix(folder.path(), "full"), unix(folder.path(), "well"));
    let stuffed = listen(&full, 0);
    let _filler = dial(&full);
    let server = listen(&well, 16);
    let missing = unix(folder.path(), "missing");
    let pool = "    algorithm: first\n    retries: 3\n";
    let evenkeel = Evenkeel::start(&config(ANY, pool, &[&full, &missing, &well]));
    for _ in 0..3 {
        let (client, serving) = pair(&door(&evenkeel, ANY), &server);
        exchange(&client, &serving);
    }
    let ends = evenkeel.ends(3);
    assert!(
        ends.iter().all(|end| end.field("server") == well),
        "{ends:?}"
    );
    let servers = evenkeel.api().status()["pools"]["web"]["servers"].clone();
    for failed in [&full, &missing] {
        let shown = servers.as_object().unwrap().values();
        let shown = shown.clone().find(|server| server["address"] == **failed);
        assert_eq!(shown.unwrap()["connections"]["failed"], 3, "{failed}");
    }
    drop(stuffed);
    drop(server);
    // Nobody is there at all.
    let mut client = dial(&door(&evenkeel, ANY));
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(evenkeel.ends(4)[3].end(), "connect_failed");
}

/// A burst fills a queue for a moment, in which the server is well.
#[test]
fn a_unix_server_with_a_full_queue_is_busy_and_not_ejected() {
    let folder = TempDir::new().unwrap();
    let (full, well) = (unix(folder.path(), "full"), unix(folder.path(), "well"));
    let stuffed = listen(&full, 0);
    let filler = dial(&full);
    let server = listen(&well, 64);
    let pool = "    algorithm: first\n    outlier: {failures: 2, ejection: 1h}\n";
    let evenkeel = Evenkeel::start(&config(ANY, pool, &[&full, &well]));
    for _ in 0..4 {
        let (client, serving) = pair(&door(&evenkeel, ANY), &server);
        exchange(&client, &serving);
    }
    let metrics = evenkeel.api().ask("GET", "/metrics").body;
    let failed = |reason: &str| {
        let labels = format!("server=\"{full}\",reason=\"{reason}\"");
        let line = metrics.lines().find(|line| line.contains(&labels));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!((&*failed("busy"), &*failed("refused")), ("4", "0"));
    // Room again: it is the first one, and nothing is held against it.
    drop((filler, accept(&stuffed)));
    let (client, serving) = pair(&door(&evenkeel, ANY), &stuffed);
    exchange(&client, &serving);
}

#[test]
fn a_unix_server_that_we_may_not_connect_to_is_a_failed_try() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("evenkeel");
    fs::copy(binary(), &program).unwrap();
    let back = unix(folder.path(), "back");
    let _server = listen(&back, 16);
    fs::set_permissions(
        folder.path().join("back"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    // Nobody may write into the folder where the test would have the socket.
    let config = format!("{}\nadmin: {{socket: off}}\n", config(ANY, "", &[&back]));
    let evenkeel = Evenkeel::launch_with(&config, as_nobody(&program));
    let mut client = dial(&door(&evenkeel, ANY));
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(evenkeel.end().end(), "connect_failed");
}

#[test]
fn a_health_check_finds_a_unix_server_down_and_up_again() {
    let folder = TempDir::new().unwrap();
    let back = unix(folder.path(), "back");
    let config = config(ANY, "", &[&back]).replace("health: off", "health: {interval: 100ms}");
    let evenkeel = Evenkeel::start(&config);
    let state = |state: &str| {
        evenkeel.api().status_where(state, |status| {
            let servers = status["pools"]["web"]["servers"].as_object()?;
            servers.values().all(|s| s["state"] == state).then_some(())
        });
    };
    state("down");
    let server = listen(&back, 64);
    state("up");
    drop(server);
    state("down");
}

#[test]
fn reloads_keep_a_unix_door_and_lose_no_client() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let path = folder.path().join("front");
    let server = listen(&back, 64);
    let wanted = |weight: u32| {
        config(&front, "", &["X"]).replace(
            "\"X\"",
            &format!("{{name: a, address: \"{back}\", weight: {weight}}}"),
        )
    };
    let evenkeel = Evenkeel::start(&wanted(1));
    let (kept, kept_serving) = pair(&front, &server);
    for round in 0..10 {
        let waiting = dial(&front);
        evenkeel.rewrite(&wanted(2 + round));
        evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
        exchange(&waiting, &accept(&server));
        exchange(&kept, &kept_serving);
    }
    // The same listener under another name, then at another place.
    let renamed = wanted(1).replace("  web: {bind", "  other: {bind");
    evenkeel.rewrite(&renamed);
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    let (client, serving) = pair(&front, &server);
    exchange(&client, &serving);
    let moved = unix(folder.path(), "moved");
    evenkeel.rewrite(&renamed.replace(&front, &moved));
    evenkeel.api().ask("POST", "/api/v1/reload").expect(200);
    assert!(!path.exists());
    let (client, serving) = pair(&moved, &server);
    exchange(&client, &serving);
    exchange(&kept, &kept_serving);
}

#[test]
fn connections_of_a_unix_door_are_spread_over_the_workers() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let server = listen(&back, 256);
    let evenkeel = Evenkeel::start(&config(&front, "", &[&back]));
    let pairs: Vec<_> = (0..100).map(|_| pair(&front, &server)).collect();
    for (client, serving) in &pairs {
        exchange(client, serving);
    }
    let metrics = evenkeel.api().ask("GET", "/metrics").body;
    let held = |worker: usize| {
        let name = format!("evenkeel_worker_connections{{worker=\"{worker}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().trim().parse::<f64>().unwrap()
    };
    assert!(
        held(0) >= 25.0 && held(1) >= 25.0,
        "{} {}",
        held(0),
        held(1)
    );
}

#[test]
fn quiet_connections_over_unix_sockets_are_drained_in_order() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let server = listen(&back, 16);
    let evenkeel = Evenkeel::start(&config(&front, "", &[&back]));
    let pairs: Vec<_> = (0..4).map(|_| pair(&front, &server)).collect();
    for (client, serving) in &pairs {
        exchange(client, serving);
    }
    // One server has not read all that it was sent: that connection is not quiet.
    (&pairs[0].0).write_all(b"unread").unwrap();
    let name = format!("web/{back}");
    let options = ["drain", &name, "--rate", "1000/s", "--quiet", "10ms"];
    let said = evenkeel.command(&options);
    assert!(said.status.success(), "{said:?}");
    let ends = evenkeel.ends(3);
    assert!(ends.iter().all(|end| end.end() == "drained"), "{ends:?}");
    for (client, serving) in &pairs[1..] {
        for mut socket in [client, serving] {
            assert_eq!(socket.read(&mut [0]).unwrap(), 0);
        }
    }
    let mut unread = [0; 6];
    (&pairs[0].1).read_exact(&mut unread).unwrap();
    assert_eq!(evenkeel.ends(4)[3].end(), "drained");
}

#[test]
fn a_proxy_on_a_unix_socket_is_believed_and_its_word_goes_on() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let server = listen(&back, 16);
    let listener = format!("{front}, proxy_protocol: accept, trusted_proxies: [10.0.0.0/8]");
    let config = config(&listener, "    send_proxy: v1\n", &[&back]);
    let evenkeel = Evenkeel::start(&config);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let mut client = dial(&front);
    // Split anywhere, what follows in the same piece as its end.
    client.write_all(&header[..9]).unwrap();
    client.write_all(&header[9..30]).unwrap();
    client
        .write_all(&[&header[30..], &b"hello"[..]].concat())
        .unwrap();
    let mut serving = accept(&server);
    let mut received = vec![0; header.len() + 5];
    serving.read_exact(&mut received).unwrap();
    assert_eq!(received, [&header[..], b"hello"].concat());
    drop((client, serving));
    assert_eq!(evenkeel.end().field("client"), "192.0.2.7:4711");
}

#[test]
fn ipv6_is_served_and_reached() {
    let server = listen("[::1]:0", 16);
    let evenkeel = Evenkeel::start(&config("\"[::1]:0\"", "", &[&place(&server)]));
    let (client, serving) = pair(&door(&evenkeel, ""), &server);
    exchange(&client, &serving);
    drop((client, serving));
    assert!(evenkeel.end().field("client").starts_with("[::1]:"));
}

#[test]
fn a_star_is_both_families_and_a_range_is_each_of_its_ports() {
    let server = listen(ANY, 64);
    let back = place(&server);
    let evenkeel = Evenkeel::start(&config("\"*:0\"", "", &[&back]));
    let addresses = evenkeel.addresses();
    assert_eq!(addresses.len(), 2);
    for (_, address) in &addresses {
        let host = if address.is_ipv4() {
            "127.0.0.1"
        } else {
            "[::1]"
        };
        let (client, serving) = pair(&format!("{host}:{}", address.port()), &server);
        exchange(&client, &serving);
    }
    let (evenkeel, first) = with_a_range(&back);
    assert_eq!(evenkeel.addresses().len(), 4);
    let line = format!("127.68.0.1:{first}-{} (listener web, 4 ports)", first + 3);
    assert!(evenkeel.errors().text().contains(&line), "{line}");
    for port in first..first + 4 {
        let (client, serving) = pair(&format!("127.68.0.1:{port}"), &server);
        exchange(&client, &serving);
    }
}

/// Four ports in a row, at an address that no other test uses: only what listens at every address can
/// be in the way.
fn with_a_range(back: &str) -> (Evenkeel, u16) {
    for _ in 0..20 {
        let probe = std::net::TcpListener::bind("127.68.0.1:0").unwrap();
        let first = probe.local_addr().unwrap().port().min(65_000);
        drop(probe);
        let range = format!("127.68.0.1:{first}-{}", first + 3);
        let mut evenkeel = Evenkeel::launch(&config(&range, "", &[back]));
        let is_ready = evenkeel.errors().wait("an outcome", |lines| {
            let is = |part: &str| lines.iter().any(|line| line.contains(part));
            (is("ready: ") || is("cannot bind")).then(|| is("ready: "))
        });
        if is_ready {
            return (evenkeel, first);
        }
        evenkeel.exit();
    }
    panic!("no four free ports in a row");
}

/// In a network namespace where connects have the local ports 40000 to 40049 alone: clients come in by
/// a unix socket, go through TCP inside, and out by another unix socket.
struct Cramped {
    folder: TempDir,
    evenkeel: Evenkeel,
    server: Socket,
}

impl Cramped {
    fn start(sources: &str, ports: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
        let server = listen(&back, 512);
        let config = format!(
            "workers: 1\nlisteners:\n  front: {{bind: \"{front}\", pool: inner}}\n  \
             inner: {{bind: 127.0.0.1:7000, pool: out}}\npools:\n  inner:\n    health: off\n\
             {sources}    servers: [127.0.0.1:7000]\n  out:\n    health: off\n    \
             servers: [\"{back}\"]\n"
        );
        let evenkeel = Evenkeel::launch_with(&config, cramped(ports));
        evenkeel.errors().wait_for("ready: ");
        Self {
            folder,
            evenkeel,
            server,
        }
    }

    fn client(&self) -> Socket {
        dial(&unix(self.folder.path(), "front"))
    }

    /// Clients that are served, of so many.
    fn served(&self, count: usize) -> Vec<(Socket, Socket)> {
        let pairs = (0..count).map(|_| (self.client(), accept(&self.server)));
        let pairs: Vec<_> = pairs.collect();
        for (client, serving) in &pairs {
            exchange(client, serving);
        }
        pairs
    }
}

/// The program in a namespace whose connects have these local ports.
fn cramped(ports: &str) -> Command {
    let mut command = Command::new(tool("unshare"));
    command.args(["--net", "sh", "-c"]);
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    command.arg(format!(
        "{} link set lo up && echo '{ports}' > {range} && exec \"$0\" \"$@\"",
        tool("ip").display()
    ));
    command.arg(binary());
    command
}

#[test]
fn several_sources_carry_what_one_cannot() {
    let sources = "    source: [127.0.0.2, 127.0.0.3, 127.0.0.4]\n";
    let cramped = Cramped::start(sources, "40000 40049");
    let pairs = cramped.served(120);
    // As many as there are ports for; the next ones end at once, as an error of our own.
    let more = cramped.served(30);
    let before = cpu_ticks(&cramped.evenkeel);
    for _ in 0..200 {
        let mut client = cramped.client();
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
    let ends = cramped.evenkeel.ends(200);
    assert!(ends.iter().all(|end| end.end() == "error"), "{:?}", ends[0]);
    let spent = cpu_ticks(&cramped.evenkeel) - before;
    assert!(
        spent < 100,
        "{spent} hundredths of a second for 200 refusals"
    );
    drop((pairs, more));
    eventually("there are ports again", || {
        let client = cramped.client();
        client.set_read_timeout(None).unwrap();
        if (&client).write_all(b"x").is_err() {
            return false;
        }
        let mut serving = match cramped.try_accept() {
            Some(serving) => serving,
            None => return false,
        };
        serving.read(&mut [0]).is_ok_and(|read| read == 1)
    });
}

impl Cramped {
    /// The server's end of what comes, if it comes soon.
    fn try_accept(&self) -> Option<Socket> {
        let soon = std::time::Duration::from_millis(200);
        self.server.set_read_timeout(Some(soon)).unwrap();
        let accepted = self.server.accept().ok();
        accepted.map(|(serving, _)| serving)
    }
}

/// User and system time so far, in hundredths of a second.
fn cpu_ticks(evenkeel: &Evenkeel) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", evenkeel.pid())).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn a_dead_local_server_is_not_taken_for_its_own_echo() {
    let folder = TempDir::new().unwrap();
    let front = unix(folder.path(), "front");
    // Of two local ports one is the dead server's: every other connect would meet itself.
    let config = config(&front, "    retries: 0\n", &["127.0.0.1:40000"]);
    let evenkeel = Evenkeel::launch_with(&config, cramped("40000 40001"));
    evenkeel.errors().wait_for("ready: ");
    for _ in 0..20 {
        let mut client = dial(&front);
        let mut said = [0; 1];
        // An echo would be our own byte.
        drop(client.write_all(b"x"));
        assert!(!matches!(client.read(&mut said), Ok(1)), "an echo");
    }
    let ends = evenkeel.ends(20);
    assert!(
        ends.iter()
            .all(|end| ["connect_failed", "error"].contains(&end.end())),
        "{ends:?}"
    );
}

#[test]
fn a_source_that_this_machine_does_not_have_is_told_and_passed_over() {
    let server = listen(ANY, 16);
    let pool = "    source: [192.0.2.1, 127.0.0.5]\n";
    let evenkeel = Evenkeel::start(&config(ANY, pool, &[&place(&server)]));
    let told = evenkeel.errors().wait_for("source 192.0.2.1");
    assert!(told.contains("WARN") && told.contains("pool web"), "{told}");
    for _ in 0..8 {
        let (client, serving) = pair(&door(&evenkeel, ANY), &server);
        exchange(&client, &serving);
        let peer = serving.peer_addr().unwrap().as_socket().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.5");
    }
}

#[test]
fn where_no_source_is_there_it_is_said_and_nobody_waits_for_it() {
    let server = listen(ANY, 16);
    let pool = "    source: 192.0.2.1\n";
    let config = config(ANY, pool, &[&place(&server)]);
    let evenkeel = Evenkeel::start(&config);
    evenkeel.connect().expect_reset();
    let words = "source 192.0.2.1 is not an address of this machine";
    evenkeel.errors().wait_for(words);
    assert_eq!(evenkeel.ends(1)[0].end(), "error");
    // A check says so as well, at once: an answer that never comes would hold up the start.
    let checked = config.replace("health: off", "health: {type: tcp}");
    let evenkeel = Evenkeel::launch(&checked);
    evenkeel.errors().wait_for("is down: source 192.0.2.1");
    evenkeel.errors().wait_for("ready: ");
    let status = evenkeel.api().status();
    let found = &status["pools"]["web"]["servers"];
    assert!(found.to_string().contains(words), "{found}");
    let said = evenkeel.errors().text();
    assert!(
        !said.contains("local ports") && !said.contains("no answer"),
        "{said}"
    );
}

#[test]
fn health_checks_go_out_from_the_first_source_that_is_there() {
    let server = listen(ANY, 16);
    let pool = "    source: [\"::1\", 192.0.2.1, 127.0.0.6]\n";
    let config = config(ANY, pool, &[&place(&server)]);
    let check = "health: {type: send_expect, expect: x, timeout: 300ms}";
    let _evenkeel = Evenkeel::launch(&config.replace("health: off", check));
    let checking = accept(&server);
    let peer = checking.peer_addr().unwrap().as_socket().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
}

#[test]
fn an_operator_adds_a_unix_server() {
    let folder = TempDir::new().unwrap();
    let (front, back) = (unix(folder.path(), "front"), unix(folder.path(), "back"));
    let server = listen(&back, 16);
    let evenkeel = Evenkeel::start(&config(&front, "", &["127.0.0.1:9"]));
    let body = format!("{{\"name\": \"sock\", \"address\": \"{back}\"}}");
    let path = "/api/v1/pools/web/servers";
    evenkeel.api().send("POST", path, &body).expect(201);
    evenkeel
        .api()
        .ask("DELETE", &format!("{path}/127.0.0.1:9"))
        .expect(204);
    let (client, serving) = pair(&front, &server);
    exchange(&client, &serving);
    // Without a name it has its address for one, slashes and all.
    drop((client, serving));
    let other = unix(folder.path(), "other");
    let body = format!("{{\"address\": \"{other}\"}}");
    evenkeel.api().send("POST", path, &body).expect(201);
    let changed = evenkeel.command(&["weight", &format!("web/{other}"), "7"]);
    assert!(changed.status.success(), "{changed:?}");
    for wrong in ["unix:relative", "unix:", "nonsense"] {
        let body = format!("{{\"address\": \"{wrong}\"}}");
        evenkeel.api().send("POST", path, &body).expect(400);
    }
    assert!(Path::new(&folder.path().join("front")).exists());
}
