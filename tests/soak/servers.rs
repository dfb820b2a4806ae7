//! The servers: three, of which at most one at a time is dead. A death either only stops
//! listening, or resets every connection of that server as well.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel::clock::Now;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};

use crate::crowd::{Crowd, FIRST_OWN_TOKEN};
use crate::endpoint::Endpoint;
use crate::harness::peers::Refusing;
use crate::ledger::Ledger;
use crate::plan::{Ending, Plan};

/// Tokens of listeners start here, those of connections without a plan yet behind them.
const FIRST_GREETING_TOKEN: usize = FIRST_OWN_TOKEN + 1024;

/// All three.
#[derive(Debug)]
pub(crate) struct Servers {
    seed: u64,
    ports: [Refusing; 3],
    listeners: [Option<TcpListener>; 3],
    crowd: Crowd,
    /// Accepted, and silent so far: health checks end so.
    greetings: slab::Slab<Greeting>,
    ledger: Arc<Ledger>,
    random: fastrand::Rng,
    /// When somebody dies or comes back.
    next_change: Now,
}

#[derive(Debug)]
struct Greeting {
    socket: TcpStream,
    server: usize,
    bytes: Vec<u8>,
}

impl Servers {
    /// Listens.
    pub(crate) fn new(seed: u64, ledger: Arc<Ledger>) -> io::Result<Self> {
        let mut servers = Self {
            seed,
            ports: [0; 3].map(|_| Refusing::new()),
            listeners: [None, None, None],
            crowd: Crowd::new()?,
            greetings: slab::Slab::new(),
            ledger,
            random: fastrand::Rng::with_seed(seed),
            next_change: Now::read() + Duration::from_secs(1),
        };
        (0..3).try_for_each(|server| servers.revive(server))?;
        Ok(servers)
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> [SocketAddr; 3] {
        self.ports.each_ref().map(Refusing::address)
    }

    /// Serves until `stop`.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::SeqCst) {
            let ledger = Arc::clone(&self.ledger);
            let tokens = self
                .crowd
                .turn(|number, outcome| ledger.server(number, outcome))?;
            for token in tokens {
                match token.checked_sub(FIRST_GREETING_TOKEN) {
                    Some(greeting) => self.greet(greeting)?,
                    None => self.accept(token - FIRST_OWN_TOKEN)?,
                }
            }
            if Now::read() >= self.next_change {
                self.change()?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, server: usize) -> io::Result<()> {
        let Some(listener) = &self.listeners[server] else {
            return Ok(());
        };
        let mut keys = Vec::new();
        while let Ok((mut socket, _)) = listener.accept() {
            let entry = self.greetings.vacant_entry();
            keys.push(entry.key());
            let token = Token(FIRST_GREETING_TOKEN + entry.key());
            self.crowd
                .poll()
                .registry()
                .register(&mut socket, token, Interest::READABLE)?;
            entry.insert(Greeting {
                socket,
                server,
                bytes: Vec::new(),
            });
        }
        keys.into_iter().try_for_each(|key| self.greet(key))
    }

    /// Reads a connection's number, and hands it over to the crowd once it is whole.
    fn greet(&mut self, key: usize) -> io::Result<()> {
        let Some(greeting) = self.greetings.get_mut(key) else {
            return Ok(());
        };
        let mut bytes = [0; 16];
        while greeting.bytes.len() < bytes.len() {
            let left = bytes.len() - greeting.bytes.len();
            match greeting.socket.read(&mut bytes[..left]) {
                Ok(read @ 1..) => greeting.bytes.extend(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A health check, or a connection whose client reset it at once.
                _ => {
                    self.greetings.remove(key);
                    return Ok(());
                }
            }
        }
        let Greeting {
            mut socket,
            server,
            bytes,
        } = self.greetings.remove(key);
        self.crowd.poll().registry().deregister(&mut socket)?;
        let (number, check) = bytes.split_at(8);
        let number = u64::from_le_bytes(number.try_into().expect("eight bytes"));
        if check != (!number).to_le_bytes() {
            self.ledger
                .fail(format!("a greeting that no client sent: {bytes:x?}"));
            return Ok(());
        }
        self.crowd
            .add(number, server, self.endpoint(number, socket))
    }

    fn endpoint(&self, number: u64, socket: TcpStream) -> Endpoint {
        let plan = Plan::new(self.seed, number);
        let endpoint = Endpoint::new(Now::read(), socket, plan.downstream, plan.upstream);
        match plan.ending {
            Ending::ClientFirst => endpoint.keep_last_part(),
            Ending::ServerReset => endpoint.end_by_reset(),
            Ending::ServerFirst | Ending::Both | Ending::ClientReset => endpoint,
        }
    }

    /// Brings back whoever is dead, else lets one die.
    fn change(&mut self) -> io::Result<()> {
        self.next_change = Now::read() + Duration::from_millis(self.random.u64(300..1_500));
        if let Some(dead) = self.listeners.iter().position(Option::is_none) {
            return self.revive(dead);
        }
        let server = self.random.usize(..3);
        self.ledger.death();
        self.listeners[server] = None;
        if self.random.bool() {
            let ledger = Arc::clone(&self.ledger);
            self.crowd
                .reset_group(server, |number, outcome| ledger.server(number, outcome));
            // Those without a number close with what they are owed: RST if they have said anything.
            self.greetings
                .retain(|_, greeting| greeting.server != server);
        }
        Ok(())
    }

    fn revive(&mut self, server: usize) -> io::Result<()> {
        let listener = self.ports[server].listen();
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let token = Token(FIRST_OWN_TOKEN + server);
        self.crowd
            .poll()
            .registry()
            .register(&mut listener, token, Interest::READABLE)?;
        self.listeners[server] = Some(listener);
        Ok(())
    }
}
