//! Who is asked for a name: /etc/hosts first, then the name servers of /etc/resolv.conf, as the C
//! library does. Both files are read again once they have changed.
//!
//! The DNS client is hickory's: retries, other name servers, TCP for long answers, chains of CNAMEs
//! and answers that nobody asked for are its business. Its cache is off, because "look again every
//! `resolve`" means just that.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::file::Stamp;
use super::names::by_family;
use super::records::{Outcome, Target};
use super::words::{NO_ADDRESS, NO_NAME, NO_SERVICE, NOT_OFFERED, of_failure, shown_servers};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// Far more than either has anywhere.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// For one try. It is the usual one; /etc/resolv.conf may ask for less.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// After the first try; /etc/resolv.conf may ask for fewer.
const RETRIES_MAX: usize = 2;
/// For one name with all its tries, name servers and search domains.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// How names are asked for at present; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
    asking: Arc<Semaphore>,
    /// The name servers, for whoever reads why nothing was found.
    servers: Arc<str>,
    /// Of the two files that it was made of.
    stamps: [Option<Stamp>; 2],
}

fn stamps() -> [Option<Stamp>; 2] {
    [RESOLV_CONF, HOSTS].map(|path| Stamp::of(Path::new(path)).ok())
}

impl Client {
    /// As the system's files say; `asking` bounds how many names are asked for at once.
    ///
    /// # Errors
    /// /etc/resolv.conf cannot be read, or not understood; told in one line.
    pub(super) fn of_system(asking: Arc<Semaphore>) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is seen the next time.
        let stamps = stamps();
        let (config, mut options) =
            system_config().map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        options.timeout = options.timeout.min(TRY_TIMEOUT);
        options.attempts = options.attempts.saturating_sub(1).min(RETRIES_MAX);
        options.cache_size = 0;
        // It would ask for the family that the file does not have.
        options.use_hosts_file = ResolveHosts::Never;
        let servers = config.name_servers().iter().map(|server| server.ip);
        let servers = shown_servers(servers).into();
        let provider = TokioRuntimeProvider::default();
        let dns = Resolver::builder_with_config(config, provider).with_options(options);
        Ok(Self {
            dns: dns.build().map_err(|error| error.to_string())?,
            // Without the file there is nothing in it.
            hosts: Arc::new(Hosts::from_system().unwrap_or_default()),
            asking,
            servers,
            stamps,
        })
    }

    /// Whether the files are still those that it was made of.
    pub(super) fn is_current(&self) -> bool {
        self.stamps == stamps()
    }

    /// IPv4 and IPv6 addresses of a host.
    pub(super) async fn addresses(&self, name: &str) -> [Outcome<IpAddr>; 2] {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return by_family(vec![ip]);
        }
        let known = self.in_hosts(name);
        if !known.is_empty() {
            return by_family(known);
        }
        let _place = self.asking.acquire().await;
        let (ipv4, ipv6) = tokio::join!(
            self.lookup(name, RecordType::A),
            self.lookup(name, RecordType::AAAA)
        );
        [ipv4, ipv6].map(|answer| self.outcome(answer, NO_ADDRESS, |record| record.data.ip_addr()))
    }

    /// The targets of a service, and addresses that came with them.
    pub(super) async fn targets(&self, name: &str) -> (Outcome<Target>, Vec<(String, IpAddr)>) {
        let _place = self.asking.acquire().await;
        let answer = self.lookup(name, RecordType::SRV).await;
        let (mut nothing, mut brought) = (NO_SERVICE, Vec::new());
        if let Ok(answer) = &answer {
            brought.extend(answer.additionals().iter().filter_map(address));
            let is_service = |record: &Record| matches!(record.data, RData::SRV(_));
            if answer.answers().iter().any(is_service) {
                nothing = NOT_OFFERED;
            }
        }
        (self.outcome(answer, nothing, target), brought)
    }

    fn in_hosts(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(name) else {
            return Vec::new();
        };
        let of = |kind| {
            let query = Query::query(name.clone(), kind);
            self.hosts.lookup_static_host(&query)
        };
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
        let ips = |lookup: Lookup| -> Vec<_> {
            let records = lookup.answers().iter();
            records.filter_map(|record| record.data.ip_addr()).collect()
        };
        found.flat_map(ips).collect()
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, NetError> {
        let answer = timeout(LOOKUP_TIMEOUT, self.dns.lookup(name, kind)).await;
        answer.unwrap_or(Err(NetError::Timeout))
    }

    /// What of an answer `read` can make use of; `nothing` says what is missing where that is nothing.
    fn outcome<T>(
        &self,
        answer: Result<Lookup, NetError>,
        nothing: &'static str,
        read: impl FnMut(&Record) -> Option<T>,
    ) -> Outcome<T> {
        let error = match answer {
            Ok(answer) => {
                let records: Vec<_> = answer.answers().iter().filter_map(read).collect();
                return match records.is_empty() {
                    true => Outcome::Nothing(nothing),
                    false => Outcome::Records(records),
                };
            }
            Err(error) => error,
        };
        let code = match &error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => Some(none.response_code),
            _ => None,
        };
        match code {
            Some(ResponseCode::NXDomain) => Outcome::Nothing(NO_NAME),
            Some(ResponseCode::NoError) => Outcome::Nothing(nothing),
            _ => Outcome::Failed(of_failure(&error, &self.servers)),
        }
    }
}

fn system_config() -> Result<(ResolverConfig, ResolverOpts), String> {
    // The name server of this machine is what resolv.conf(5) falls back to.
    let local = || {
        let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        let config = ResolverConfig::from_name_servers(vec![server]);
        (config, ResolverOpts::default())
    };
    let mut text = Vec::new();
    match File::open(RESOLV_CONF) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(local()),
        Err(error) => return Err(error.to_string()),
    }
    .map_err(|error| error.to_string())?;
    let names_a_server = String::from_utf8_lossy(&text)
        .lines()
        .any(|line| line.trim_start().starts_with("nameserver"));
    if !names_a_server {
        return Ok(local());
    }
    parse_resolv_conf(text).map_err(|error| error.to_string())
}

fn address(record: &Record) -> Option<(String, IpAddr)> {
    Some((shown(&record.name), record.data.ip_addr()?))
}

/// `.` is how a record says that there is no such service (RFC 2782).
fn target(record: &Record) -> Option<Target> {
    let RData::SRV(service) = &record.data else {
        return None;
    };
    (!service.target.is_root()).then(|| Target {
        priority: service.priority,
        name: shown(&service.target),
        port: service.port,
        weight: service.weight,
    })
}

/// As it is asked for: with the dot at its end, so that no search domain is added, and in one case.
fn shown(name: &Name) -> String {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name.to_string()
}
