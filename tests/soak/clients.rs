//! The clients: as many connections at once as asked for, each with its plan.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel::clock::Now;
use mio::net::TcpStream;

use crate::crowd::Crowd;
use crate::endpoint::Endpoint;
use crate::harness::peers::connect_from;
use crate::ledger::{Ledger, client_address};
use crate::plan::{Ending, Plan};

/// What the clients of a run need to know.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) seed: u64,
    /// At once.
    pub(crate) connections: usize,
    /// No new connections after this time.
    pub(crate) run: Duration,
    /// The program under test.
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Arc<Ledger>,
    /// Set when something hangs: nobody need go on.
    pub(crate) broken: Arc<AtomicBool>,
}

impl Clients {
    /// Connects until the time is over, and returns when the last connection has ended.
    pub(crate) fn run(&self) -> io::Result<()> {
        let mut crowd = Crowd::new()?;
        let until = Now::read() + self.run;
        let mut number = 0;
        while !self.broken.load(Ordering::SeqCst) {
            let now = Now::read();
            if now >= until && crowd.len() == 0 {
                return Ok(());
            }
            let room = self.connections - crowd.len();
            // Few a turn, so that those that are there go on.
            let new = if now < until { room.min(8) as u64 } else { 0 };
            (number..number + new).try_for_each(|number| self.open(&mut crowd, now, number))?;
            number += new;
            crowd.turn(|number, outcome| self.ledger.client(number, outcome))?;
            if let Some(hanging) = crowd.hanging(now) {
                self.ledger.fail(hanging);
                self.broken.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn open(&self, crowd: &mut Crowd, now: Now, number: u64) -> io::Result<()> {
        self.ledger.begin(number);
        let plan = Plan::new(self.seed, number);
        let mut socket = connect_from(client_address(number).octets(), self.address);
        // Fits any socket's buffer; a reset that came first will be seen by the endpoint.
        let greeting = [number.to_le_bytes(), (!number).to_le_bytes()].concat();
        drop(socket.write_all(&greeting));
        socket.set_nonblocking(true)?;
        let socket = TcpStream::from_std(socket);
        let mut endpoint = Endpoint::new(now, socket, plan.upstream, plan.downstream);
        if plan.ending == Ending::ServerFirst {
            endpoint = endpoint.keep_last_part();
        }
        if plan.ending == Ending::ClientReset {
            endpoint = endpoint.end_by_reset();
        }
        crowd.add(number, 0, endpoint)
    }
}
