//! The loads that `scripts/bench` needs and no packaged tool makes: requests at a fixed rate,
//! connections that rest or are turned away, and a server for health checks.
//!
//! It is a client and a server of any proxy and knows nothing of evenkeel's own modules. Plain
//! blocking threads: at these rates the kernel is the better scheduler, and a reader sees at once
//! what is measured. Results go to standard output, one line.

#![allow(
    clippy::disallowed_methods,
    reason = "a load generator lives by the clock; the program itself goes through clock.rs"
)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use socket2::{Domain, Socket, Type};

/// What goes each way over a connection before it rests, in bytes.
const GREETING: [u8; 100] = [b'.'; 100];
/// An answer that takes longer is an error: nothing is left to measure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections made and closed before the idle ones, so that a proxy has its tables and buffers.
const WARM_UP_CONNECTIONS: usize = 64;
/// Enough for every thread here, so that many connections do not cost much memory.
const STACK_BYTES: usize = 128 * 1024;

/// Loads for scripts/bench.
#[derive(Parser)]
enum Load {
    /// HTTP requests at a fixed rate, whether or not the answers keep up. A latency counts from the
    /// moment its request was due, so a stall is charged to all the requests that it delayed.
    Rate {
        address: SocketAddr,
        /// Requests a second over all connections.
        rate: u32,
        connections: u32,
        seconds: u32,
    },
    /// Makes connections through `proxy` to its server `server`, which it plays itself; says
    /// "ready" after a warm-up and "idle" once they all rest, and waits for a line after each.
    Idle {
        proxy: SocketAddr,
        server: SocketAddr,
        connections: usize,
    },
    /// Comes again and again where it is turned away, on so many connections at a time.
    Refused {
        address: SocketAddr,
        connections: u32,
        seconds: u32,
    },
    /// Accepts at every loopback address and closes at once.
    Accept { port: u16 },
}

fn main() -> io::Result<()> {
    match Load::parse() {
        Load::Rate {
            address,
            rate,
            connections,
            seconds,
        } => {
            let pace = Pace {
                between_requests: Duration::from_secs(1) / rate,
                connections,
                requests_each: rate * seconds / connections,
            };
            fixed_rate(address, pace)
        }
        Load::Idle {
            proxy,
            server,
            connections,
        } => idle(proxy, server, connections),
        Load::Refused {
            address,
            connections,
            seconds,
        } => be_refused(address, connections, seconds),
        Load::Accept { port } => accept_and_close(port),
    }
}

/// When requests are due: request k of connection c at `(k * connections + c) * between_requests`.
#[derive(Clone, Copy)]
struct Pace {
    between_requests: Duration,
    connections: u32,
    requests_each: u32,
}

/// Runs the whole load and prints percentiles, in microseconds, as JSON.
fn fixed_rate(address: SocketAddr, pace: Pace) -> io::Result<()> {
    // All threads are up before the first request is due.
    let start = Instant::now() + Duration::from_millis(200);
    let mut threads = Vec::new();
    for connection in 0..pace.connections {
        let stream = connect(address)?;
        let first_due = start + pace.between_requests * connection;
        threads.push(
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || requests(stream, first_due, pace))?,
        );
    }
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().expect("a load thread returns its errors")?);
    }
    latencies.sort_unstable();
    let at =
        |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    println!(
        r#"{{"requests": {}, "p50_us": {:.1}, "p99_us": {:.1}, "p999_us": {:.1}, "max_us": {:.1}}}"#,
        latencies.len(),
        at(500),
        at(990),
        at(999),
        at(1000)
    );
    Ok(())
}

/// One connection's share. A late answer delays the next request but not the time it was due.
fn requests(mut stream: TcpStream, first_due: Instant, pace: Pace) -> io::Result<Vec<Duration>> {
    let request = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
    let mut answer = vec![0; 4096];
    let mut latencies = Vec::new();
    let mut due = first_due;
    for _ in 0..pace.requests_each {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request)?;
        read_answer(&mut stream, &mut answer)?;
        latencies.push(due.elapsed());
        due += pace.between_requests * pace.connections;
    }
    Ok(latencies)
}

/// Reads a whole answer: its head, and the body that `Content-Length` announces.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..])?;
        if count == 0 {
            return Err(io::Error::other("the answer broke off"));
        }
        filled += count;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head.parse(&buffer[..filled]).map_err(io::Error::other)?;
        let httparse::Status::Complete(head_bytes) = parsed else {
            continue;
        };
        if filled >= head_bytes + content_length(head.headers) {
            return Ok(());
        }
    }
}

fn content_length(headers: &[httparse::Header]) -> usize {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .unwrap_or(0)
}

/// Counts how often clients are turned away, and prints it as JSON.
fn be_refused(address: SocketAddr, connections: u32, seconds: u32) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let mut threads = Vec::new();
    for _ in 0..connections {
        let visits = move || visits(address, end);
        threads.push(
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(visits)?,
        );
    }
    let mut refused = 0;
    for thread in threads {
        refused += thread.join().expect("a load thread returns its errors")?;
    }
    println!(r#"{{"refused": {refused}}}"#);
    Ok(())
}

/// One client's visits until `end`; each ends by a reset or a FIN, and before any byte.
fn visits(address: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut refused = 0;
    while Instant::now() < end {
        // The reset may be there before the connect has returned.
        let read = TcpStream::connect(address).and_then(|mut stream| stream.read(&mut [0]));
        match read {
            Ok(0) => {}
            Ok(_) => return Err(io::Error::other("it was served")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
        refused += 1;
    }
    Ok(refused)
}

/// Holds connections that have carried a greeting each way, until a line comes in.
fn idle(proxy: SocketAddr, server: SocketAddr, connections: usize) -> io::Result<()> {
    let listener = TcpListener::bind(server)?;
    let warm_up = connect_through(proxy, &listener, WARM_UP_CONNECTIONS)?;
    drop(warm_up);
    say_and_wait("ready")?;
    let held = connect_through(proxy, &listener, connections)?;
    say_and_wait("idle")?;
    drop(held);
    Ok(())
}

/// Both ends of each connection; the order in which they are accepted is the order they are made.
fn connect_through(
    proxy: SocketAddr,
    listener: &TcpListener,
    count: usize,
) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = connect(proxy)?;
        let (mut server, _) = listener.accept()?;
        let mut greeting = GREETING;
        client.write_all(&greeting)?;
        server.read_exact(&mut greeting)?;
        server.write_all(&greeting)?;
        client.read_exact(&mut greeting)?;
        pairs.push((client, server));
    }
    Ok(pairs)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn say_and_wait(word: &str) -> io::Result<()> {
    println!("{word}");
    io::stdin().read_line(&mut String::new()).map(drop)
}

/// Bound to the loopback device, since only the wildcard address covers all of 127.0.0.0/8.
fn accept_and_close(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind_device(Some(b"lo"))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    loop {
        drop(socket.accept()?);
    }
}
