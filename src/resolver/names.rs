//! What one question takes: a host is asked for both families, a service for its records and then for
//! the addresses of its targets. Who is asked, and how, is `client`'s; what the answers mean is
//! `records`'.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Failure;
use super::client::Client;
use super::records::{Memory, Outcome, RECORDS_MAX, Target, of_host, of_service};
use super::words::{self, NO_ADDRESS};
use crate::config::{Found, Question};

/// Names that are asked for at once, each with a socket for A and one for AAAA at two name servers.
pub(super) const LOOKUPS_MAX: usize = 16;

/// Whoever asks for names; one for the whole thread.
#[derive(Debug)]
pub(super) struct Names {
    client: Mutex<Option<Client>>,
    asking: Arc<Semaphore>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            client: Mutex::new(None),
            asking: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

impl Names {
    /// Asks once; `memory` is the question's own.
    pub(super) async fn ask(
        &self,
        question: &Question,
        memory: &mut Memory,
    ) -> Result<Vec<Found>, Failure> {
        let client = self.client()?;
        let found = match question {
            Question::Host { name, port } => {
                let outcomes = client.addresses(name).await;
                of_host(memory.merge(name, outcomes)?, *port)
            }
            Question::Service(name) => service(&client, name, memory).await?,
            // Files are looked at by a task of another kind.
            Question::File(_) => Vec::new(),
        };
        match found.is_empty() {
            true => Err(Failure::new(NO_ADDRESS)),
            false => Ok(found),
        }
    }

    /// Made anew where a file that it rests on is another one by now.
    fn client(&self) -> Result<Client, Failure> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = client.as_ref().filter(|client| client.is_current()) {
            return Ok(client.clone());
        }
        let made = Client::of_system(Arc::clone(&self.asking)).map_err(Failure::new)?;
        Ok(client.insert(made).clone())
    }
}

async fn service(client: &Client, name: &str, memory: &mut Memory) -> Result<Vec<Found>, Failure> {
    let (outcome, brought) = client.targets(name).await;
    let mut targets = match outcome {
        Outcome::Records(targets) => targets,
        Outcome::Nothing(why) => return Err(Failure::new(words::of_service(name, why))),
        Outcome::Failed(why) => return Err(Failure::new(words::of_service(name, why))),
    };
    targets.sort();
    targets.truncate(RECORDS_MAX);
    memory.keep(|name| targets.iter().any(|target| target.name == name));
    let mut reason = None;
    for (name, outcomes) in addresses_of(client, &targets, &brought).await {
        // A target that cannot be found keeps the addresses that it had.
        let failure = memory.merge(&name, outcomes).err();
        let failure = failure.map(|failure| Failure::new(words::of_target(&name, failure)));
        reason = reason.or(failure);
    }
    let found = of_service(&targets, |name| memory.recall(name));
    match (found.is_empty(), reason) {
        (true, Some(failure)) => Err(failure),
        _ => Ok(found),
    }
}

/// A name with its IPv4 and IPv6 addresses.
type Addresses = (String, [Outcome<IpAddr>; 2]);

/// The addresses of each target. Where the answer has `brought` those of all of them, as most name
/// servers' do, nobody is asked again.
async fn addresses_of(
    client: &Client,
    targets: &[Target],
    brought: &[(String, IpAddr)],
) -> Vec<Addresses> {
    let mut names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    names.sort();
    names.dedup();
    let brought = |wanted: &String| {
        let all = brought.iter().filter(|(name, _)| name == wanted);
        let ips: Vec<_> = all.map(|(_, ip)| *ip).collect();
        (!ips.is_empty()).then(|| (wanted.clone(), by_family(ips)))
    };
    let known: Option<Vec<_>> = names.iter().map(brought).collect();
    if let Some(known) = known {
        return known;
    }
    let mut names = names.into_iter();
    let mut asked = JoinSet::new();
    let mut all = Vec::new();
    loop {
        while asked.len() < LOOKUPS_MAX
            && let Some(name) = names.next()
        {
            let client = client.clone();
            asked.spawn(async move {
                let outcomes = client.addresses(&name).await;
                (name, outcomes)
            });
        }
        match asked.join_next().await {
            // A task that panicked has ended the process.
            Some(done) => all.extend(done.ok()),
            None => return all,
        }
    }
}

/// IPv4 first.
pub(super) fn by_family(ips: Vec<IpAddr>) -> [Outcome<IpAddr>; 2] {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = ips.into_iter().partition(IpAddr::is_ipv4);
    [ipv4, ipv6].map(|ips| match ips.is_empty() {
        true => Outcome::Nothing(NO_ADDRESS),
        false => Outcome::Records(ips),
    })
}
