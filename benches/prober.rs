//! What checking costs: `cargo bench --bench prober -- [SERVERS [SECONDS]]`.
//!
//! Checks SERVERS [10000] tcp servers every 5 s for SECONDS [20] and prints the processor time of
//! the prober's thread alone, in the steady state after the first checks. The servers listen in
//! this process, each on its own loopback address; nobody accepts, as a tcp check ends before the
//! handshake is complete. The kernel's work for both ends of a handshake on loopback is done, and
//! counted, in the thread that sends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossbeam_channel::{Receiver, never, unbounded};

use evenkeel::clock::Now;
use evenkeel::config::{Check, Health};
use evenkeel::ids::ServerId;
use evenkeel::prober::{Report, Step, Target, spawn};

const INTERVAL: Duration = Duration::from_secs(5);

/// Of the kernel's times in /proc; the same on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<()> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    let servers = numbers.next().unwrap_or(10_000);
    let seconds = numbers.next().unwrap_or(20);
    let listeners = listen(servers)?;
    let (sender, reports) = unbounded();
    let deliver = move |report| {
        // The receiver goes first, at the end.
        sender.send(report).unwrap_or_default();
    };
    let steps = targets(&listeners)?.into_iter().map(Step::Watch);
    let prober = spawn(deliver)?;
    prober.change(steps.collect());
    await_first_answers(&reports, servers)?;
    // The first round stands closer together than all others.
    pass(INTERVAL * 3 / 2);

    let (checks, cpu, begun) = (prober.lag().checks(), cpu_seconds()?, Now::read());
    pass(Duration::from_secs(seconds.into()));
    let elapsed = Now::read().since(begun).as_secs_f64();
    let checks = prober.lag().checks() - checks;
    let cpu = cpu_seconds()? - cpu;
    println!("servers            {servers}");
    println!("checks per second  {:.0}", checks as f64 / elapsed);
    println!(
        "processor time     {:.1} % of a core",
        cpu / elapsed * 100.0
    );
    println!(
        "                   {:.1} us a check",
        cpu / checks as f64 * 1e6
    );
    println!("begun late, p99    under {:?}", prober.lag().quantile(0.99));
    let failed = reports.try_iter().filter(|report| !report.is_up).count();
    ensure!(failed == 0, "{failed} servers went down");
    prober.stop();
    Ok(())
}

/// One port on as many loopback addresses as there are servers: a connect passes over every port
/// that anybody is bound to, so thousands of ports would be a different measurement.
fn listen(servers: u32) -> Result<Vec<TcpListener>> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    let mut port = 0;
    let one = |address| {
        let address = SocketAddr::from((Ipv4Addr::from(address), port));
        let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
        port = listener.local_addr()?.port();
        Ok(listener)
    };
    (first..first + servers).map(one).collect()
}

fn targets(listeners: &[TcpListener]) -> Result<Vec<Target>> {
    let health = Arc::new(Health {
        check: Check::Tcp,
        interval: INTERVAL,
        timeout: Duration::from_secs(2),
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        port: None,
        tls: None,
    });
    let target = |(index, listener): (usize, &TcpListener)| {
        Ok(Target {
            server: ServerId::new(index),
            name: format!("pool/{index}").into(),
            address: listener.local_addr()?.into(),
            sources: Vec::new(),
            health: Arc::clone(&health),
            kit: Arc::default(),
            checkup: Arc::default(),
        })
    };
    listeners.iter().enumerate().map(target).collect()
}

fn await_first_answers(reports: &Receiver<Report>, servers: u32) -> Result<()> {
    let begun = Now::read();
    for _ in 0..servers {
        let report = reports
            .recv_timeout(Duration::from_secs(30))
            .context("no first answer")?;
        ensure!(
            report.is_up,
            "{} is down: {}",
            report.server.index(),
            report.reason
        );
    }
    println!("first answers      after {:.2?}", Now::read().since(begun));
    Ok(())
}

fn pass(time: Duration) {
    // Nobody sends, so this is the time itself.
    never::<()>().recv_timeout(time).unwrap_or_default();
}

/// User and system time of the thread that is named "prober".
fn cpu_seconds() -> Result<f64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let Some((_, fields)) = stat.split_once("(prober) ") else {
            continue;
        };
        // Fields 14 and 15 of the whole line; the name was the second.
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
        return Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND);
    }
    anyhow::bail!("no thread is named prober")
}
