//! A name server that says what its test wants, and a place for the program where it is the system's
//! own: its mount namespace has another /etc/resolv.conf and /etc/hosts. Needs root, as port 53 does.
//!
//! Messages are written by hand (RFC 1035): two dozen lines do, and a test may want a wrong one.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use super::program::{Evenkeel, binary};

/// What a datagram may have without EDNS; longer answers come by TCP.
const DATAGRAM_MAX: usize = 512;
/// How often the threads look whether they are to end.
const LOOK: Duration = Duration::from_millis(20);
const TRUNCATED: u8 = 2;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// What is answered for a name, whatever is asked of it.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Those that are asked for; none of that kind is an answer as well.
    Records(Vec<Record>),
    /// Records for questions of one family, a code for those of the other.
    OnlyIpv4(Vec<Record>, u8),
    /// NXDOMAIN is 3, SERVFAIL 2.
    Code(u8),
    /// Nothing at all.
    Silence,
    /// Records, under an id that nobody has asked with.
    WrongId(Vec<Record>),
}

pub(crate) const NXDOMAIN: Reply = Reply::Code(3);
pub(crate) const SERVFAIL: Reply = Reply::Code(2);

#[derive(Clone, Debug)]
pub(crate) enum Record {
    Address(IpAddr),
    Alias(&'static str),
    Service {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
}

/// Addresses as records.
pub(crate) fn addresses(all: &[&str]) -> Reply {
    let all = all.iter().map(|ip| Record::Address(ip.parse().unwrap()));
    Reply::Records(all.collect())
}

#[derive(Debug, Default)]
struct Zone {
    replies: Mutex<HashMap<String, Reply>>,
    /// By name.
    asked: Mutex<HashMap<String, usize>>,
    asked_by_tcp: AtomicUsize,
    stopping: AtomicBool,
}

/// The name server; it says NXDOMAIN to whatever it was not told of.
#[derive(Debug)]
pub(crate) struct Dns {
    zone: Arc<Zone>,
    threads: Vec<JoinHandle<()>>,
    folder: TempDir,
    address: Ipv4Addr,
}

impl Dns {
    /// Serves on an address of its own.
    pub(crate) fn start() -> Self {
        let (address, udp, tcp) = bound();
        let zone = Arc::new(Zone::default());
        let threads = vec![
            thread::spawn({
                let zone = Arc::clone(&zone);
                move || serve_datagrams(&udp, &zone)
            }),
            thread::spawn({
                let zone = Arc::clone(&zone);
                move || serve_streams(&tcp, &zone)
            }),
        ];
        let dns = Self {
            zone,
            threads,
            folder: TempDir::new().unwrap(),
            address,
        };
        dns.resolv_conf("options timeout:1 attempts:1");
        dns.hosts("127.0.0.1 localhost");
        dns
    }

    /// Says this of a name from now on.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        let mut replies = self.zone.replies.lock().unwrap();
        replies.insert(name.to_owned(), reply);
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.zone.asked.lock().unwrap().values().sum()
    }

    /// Questions about one name so far.
    pub(crate) fn asked_for(&self, name: &str) -> usize {
        let asked = self.zone.asked.lock().unwrap();
        asked.get(name).copied().unwrap_or(0)
    }

    /// Questions so far that came by TCP.
    pub(crate) fn asked_by_tcp(&self) -> usize {
        self.zone.asked_by_tcp.load(Ordering::SeqCst)
    }

    /// Writes /etc/hosts, in place.
    pub(crate) fn hosts(&self, text: &str) {
        fs::write(self.path("hosts"), format!("{text}\n")).unwrap();
    }

    /// Writes /etc/resolv.conf, in place, with this server in it.
    pub(crate) fn resolv_conf(&self, options: &str) {
        let text = format!("nameserver {}\n{options}\n", self.address);
        fs::write(self.path("resolv.conf"), text).unwrap();
    }

    /// Writes /etc/resolv.conf, in place, with a server in it that is not there.
    pub(crate) fn leave_resolv_conf(&self) {
        let text = "nameserver 127.255.255.1\noptions timeout:1 attempts:1\n";
        fs::write(self.path("resolv.conf"), text).unwrap();
    }

    /// Starts the program where this is the system's name server, and waits for its ready line.
    #[track_caller]
    pub(crate) fn run(&self, config: &str) -> Evenkeel {
        let started = self.launch(config);
        started.errors().wait_for("ready: ");
        started
    }

    /// Starts it and does not wait.
    pub(crate) fn launch(&self, config: &str) -> Evenkeel {
        const SCRIPT: &str = "mount --bind \"$0\" /etc/resolv.conf && \
             mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT]);
        command.args([self.path("resolv.conf"), self.path("hosts"), binary()]);
        Evenkeel::launch_with(config, command)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.zone.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or(());
        }
    }
}

/// Port 53 is the only one that /etc/resolv.conf knows, but there are many loopback addresses.
fn bound() -> (Ipv4Addr, UdpSocket, TcpListener) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    loop {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let address = Ipv4Addr::new(127, 64 | (high & 63), low, number);
        let place = (address, 53);
        match (UdpSocket::bind(place), TcpListener::bind(place)) {
            (Ok(udp), Ok(tcp)) => return (address, udp, tcp),
            (Err(error), _) | (_, Err(error)) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::AddrInUse,
                    "port 53 needs root: {error}"
                );
            }
        }
    }
}

fn serve_datagrams(socket: &UdpSocket, zone: &Zone) {
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let mut question = [0; DATAGRAM_MAX];
    while !zone.stopping.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut question) else {
            continue;
        };
        if let Some(mut answer) = zone.answer(&question[..length]) {
            if answer.len() > DATAGRAM_MAX {
                answer = truncated(&question[..length]);
            }
            drop(socket.send_to(&answer, from));
        }
    }
}

fn serve_streams(listener: &TcpListener, zone: &Arc<Zone>) {
    listener.set_nonblocking(true).unwrap();
    while !zone.stopping.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let zone = Arc::clone(zone);
                // It ends with its client, which is the program under test.
                thread::spawn(move || serve_stream(stream, &zone));
            }
            Err(_) => super::pause(LOOK),
        }
    }
}

fn serve_stream(mut stream: TcpStream, zone: &Zone) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).ok()?;
        zone.asked_by_tcp.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = zone.answer(&question) {
            let length = u16::try_from(answer.len()).unwrap();
            stream.write_all(&length.to_be_bytes()).ok()?;
            stream.write_all(&answer).ok()?;
        }
    }
}

/// The question's name without a dot at its end, its kind, and where it ends.
fn read(question: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let (name, kind, end) = read(question)?;
        *self.asked.lock().unwrap().entry(name.clone()).or_default() += 1;
        let reply = self.replies.lock().unwrap().get(&name).cloned();
        let mut id = u16::from_be_bytes(question[..2].try_into().unwrap());
        let (code, records) = match reply.unwrap_or(NXDOMAIN) {
            Reply::Records(records) => (0, records),
            Reply::OnlyIpv4(_, code) if kind == AAAA => (code, Vec::new()),
            Reply::OnlyIpv4(records, _) => (0, records),
            Reply::Code(code) => (code, Vec::new()),
            Reply::Silence => return None,
            Reply::WrongId(records) => {
                id = id.wrapping_add(1);
                (0, records)
            }
        };
        let records: Vec<_> = records.iter().filter_map(|r| r.written(kind)).collect();
        let mut answer = head(id, 0, code, u16::try_from(records.len()).unwrap());
        answer.extend(&question[12..end]);
        answer.extend(records.concat());
        Some(answer)
    }
}

fn truncated(question: &[u8]) -> Vec<u8> {
    let (_, _, end) = read(question).unwrap();
    let id = u16::from_be_bytes(question[..2].try_into().unwrap());
    let mut answer = head(id, TRUNCATED, 0, 0);
    answer.extend(&question[12..end]);
    answer
}

/// An answer to one question, recursion available.
fn head(id: u16, flags: u8, code: u8, answers: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let [many, few] = answers.to_be_bytes();
    vec![
        high,
        low,
        0x81 | flags,
        0x80 | code,
        0,
        1,
        many,
        few,
        0,
        0,
        0,
        0,
    ]
}

impl Record {
    /// As the answer has it, with a long life; `None` where another kind was asked for.
    fn written(&self, kind: u16) -> Option<Vec<u8>> {
        let (own, data) = match self {
            Self::Address(IpAddr::V4(ip)) => (A, ip.octets().to_vec()),
            Self::Address(IpAddr::V6(ip)) => (AAAA, ip.octets().to_vec()),
            Self::Alias(name) => (CNAME, written_name(name)),
            Self::Service {
                priority,
                weight,
                port,
                target,
            } => {
                let numbers = [*priority, *weight, *port].map(u16::to_be_bytes);
                (SRV, [numbers.concat(), written_name(target)].concat())
            }
        };
        if own != kind && own != CNAME {
            return None;
        }
        // The name is the question's, by a pointer to it.
        let mut record = vec![0xc0, 12];
        record.extend([own, 1].map(u16::to_be_bytes).concat());
        record.extend(3600_u32.to_be_bytes());
        record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        record.extend(data);
        Some(record)
    }
}

fn written_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let labels =
        labels.map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    let mut written: Vec<u8> = labels.flatten().collect();
    written.push(0);
    written
}

/// Listeners at one port of several loopback addresses, so that one name can mean all of them.
pub(crate) fn at_one_port(addresses: &[&str]) -> (u16, Vec<TcpListener>) {
    for _ in 0..100 {
        let first = TcpListener::bind((addresses[0], 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let rest = addresses[1..].iter();
        let rest: Result<Vec<_>, _> = rest.map(|ip| TcpListener::bind((*ip, port))).collect();
        if let Ok(rest) = rest {
            return (port, std::iter::once(first).chain(rest).collect());
        }
    }
    panic!("no port is free at all of {addresses:?}");
}

/// Where a server of such a name is.
pub(crate) fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}
