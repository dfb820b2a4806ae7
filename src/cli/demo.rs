//! `evenkeel demo`: finds addresses, says what to open and what to try, and runs a demonstration as
//! any other configuration.

use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::config::AdminSocket;
use crate::demo::{Demo, Place, Token, reachable};
use crate::process::{self, Start};

const LISTEN_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9900;
/// What is more is hard to follow on a page.
const SERVERS_MAX: u64 = 20;

/// The arguments of `evenkeel demo`.
#[derive(Args, Debug)]
pub(super) struct DemoArguments {
    /// Address to listen at; port 0 is a free one [default: 127.0.0.1:8080, or a free port].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the page in the browser [default: 127.0.0.1:9900, or a free port].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Real servers to start, 1 to 20.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=SERVERS_MAX))]
    servers: u64,
}

/// Runs a demonstration until SIGTERM or SIGINT.
///
/// # Errors
/// Where an address that was asked for is taken, or the process cannot start.
pub(super) fn demo(arguments: &DemoArguments) -> anyhow::Result<()> {
    // Both are held until the end: nobody else gets the ports before the process binds them.
    let listen = place("--listen", arguments.listen, LISTEN_PORT)?;
    let admin = place("--admin", arguments.admin, ADMIN_PORT)?;
    let servers = usize::try_from(arguments.servers)?;
    let (demo, mut config) = Demo::start(listen.address(), servers)?;
    config.admin.socket = AdminSocket::Off;
    config.admin.http = Some(admin.address());
    config.admin.is_open = admin.address().ip().is_loopback();
    let token = if config.admin.is_open {
        None
    } else {
        Some(token()?)
    };
    config.admin.http_token_file = token.as_ref().map(|token| token.path().to_owned());
    welcome(&admin, &listen, token.as_ref());
    let exhibit = Arc::new(demo);
    Ok(process::run(Start {
        config,
        file: None,
        digest: None,
        exhibit: Some(exhibit),
        predecessor: None,
    })?)
}

/// The address that was asked for, or the usual one where it is free.
fn place(option: &str, asked: Option<SocketAddr>, port: u16) -> anyhow::Result<Place> {
    if let Some(address) = asked {
        return Place::take(address).map_err(|error| refused(option, address, &error));
    }
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match Place::take(usual) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            say(&format!(
                "{usual} is in use; a free port does as well ({option} chooses one)\n"
            ));
            let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            Place::take(free).map_err(|error| refused(option, free, &error))
        }
        taken => taken.map_err(|error| refused(option, usual, &error)),
    }
}

fn refused(option: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let what_to_do = match error.kind() {
        ErrorKind::AddrInUse => "leave the option out, or name a free port; 0 finds one",
        ErrorKind::PermissionDenied => "name a port from 1024 on",
        _ => "name an address of this machine, such as 127.0.0.1:0",
    };
    anyhow::anyhow!("{option}: cannot bind {address}: {error}: {what_to_do}")
}

fn token() -> anyhow::Result<Token> {
    let folder = std::env::temp_dir();
    Token::make(&folder).map_err(|error| {
        let folder = Path::new(&folder).display();
        anyhow::anyhow!("cannot make a token in {folder}: {error}: set TMPDIR to a folder of yours")
    })
}

fn welcome(admin: &Place, listen: &Place, token: Option<&Token>) {
    let page = reachable(admin.address());
    let fragment = token.map_or_else(String::new, |token| format!("#token={}", token.text()));
    let elsewhere = if admin.address().ip().is_unspecified() {
        "  (from elsewhere: the same with an address of this machine)\n"
    } else {
        ""
    };
    let target = reachable(listen.address());
    say(&format!(
        "\
open http://{page}/{fragment} in a browser
{elsewhere}
  or try the listener yourself:  curl http://{target}/
  what to try on the page:       kill a server, slow one, change the algorithm or a weight
  to stop:                       Ctrl-C

"
    ));
}

/// To whoever reads standard output.
fn say(text: &str) {
    // With nobody there the demonstration runs all the same.
    io::stdout().write_all(text.as_bytes()).unwrap_or(());
}
