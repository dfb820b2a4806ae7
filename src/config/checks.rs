//! Health checks as the program uses them: what is asked, how often, and which answer is good.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a pool's servers are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is sent, and which answer is good.
    pub check: Check,
    /// From one check's start to the next one's.
    pub interval: Duration,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Good answers in a row that make a server up.
    pub rise: NonZeroU32,
    /// Bad answers in a row that make a server down.
    pub fall: NonZeroU32,
    /// Where it differs from the server's own.
    pub port: Option<u16>,
    /// Spoken below `http`, `grpc` and `tcp`; `None` is plain.
    pub tls: Option<Arc<Tls>>,
}

/// How TLS is spoken to a server that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether the certificate must be good.
    pub verify: bool,
    /// Authorities to believe, in PEM; `None` is those of the machine.
    pub ca: Option<PathBuf>,
    /// Asked for by SNI, and the name that the certificate must have; `None` is the address.
    pub server_name: Option<Arc<str>>,
}

impl Default for Tls {
    /// That of `tls: true`.
    fn default() -> Self {
        Self {
            verify: true,
            ca: None,
            server_name: None,
        }
    }
}

/// What is sent, and which answer is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The connect succeeds.
    Tcp,
    /// An HTTP/1.1 GET is answered as expected.
    Http(HttpCheck),
    /// Bytes are sent, and the answer contains what is expected.
    SendExpect {
        /// Sent once connected; may be empty.
        send: Vec<u8>,
        /// Looked for in what the server sends.
        expect: Vec<u8>,
    },
    /// `PING` is answered by `PONG`.
    Redis(RedisCheck),
    /// A session begins.
    Postgres(PostgresCheck),
    /// A session begins, or the user is unknown: both mean that the server is well.
    Mysql(MysqlCheck),
    /// grpc.health.v1.Health/Check says SERVING.
    Grpc(GrpcCheck),
    /// A program ends with 0.
    Exec(ExecCheck),
    /// The server says how it is, in a line of words.
    Agent(AgentCheck),
}

impl Check {
    /// The word for it in the config.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    pub(super) const fn kind(&self) -> CheckKind {
        match self {
            Self::Tcp => CheckKind::Tcp,
            Self::Http(_) => CheckKind::Http,
            Self::SendExpect { .. } => CheckKind::SendExpect,
            Self::Redis(_) => CheckKind::Redis,
            Self::Postgres(_) => CheckKind::Postgres,
            Self::Mysql(_) => CheckKind::Mysql,
            Self::Grpc(_) => CheckKind::Grpc,
            Self::Exec(_) => CheckKind::Exec,
            Self::Agent(_) => CheckKind::Agent,
        }
    }
}

/// A check's type, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    Tcp,
    Http,
    SendExpect,
    Redis,
    Postgres,
    Mysql,
    Grpc,
    Exec,
    Agent,
}

impl CheckKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Http,
        Self::SendExpect,
        Self::Redis,
        Self::Postgres,
        Self::Mysql,
        Self::Grpc,
        Self::Exec,
        Self::Agent,
    ];

    /// The word for it in the config.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::SendExpect => "send_expect",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Grpc => "grpc",
            Self::Exec => "exec",
            Self::Agent => "agent",
        }
    }
}

/// A Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisCheck {
    /// Holds the password to be sent first; without it, to be asked for one is good.
    pub password_file: Option<PathBuf>,
}

/// A PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresCheck {
    /// Who begins the session.
    pub user: String,
    /// Where; the user's name where `None`, as the server does.
    pub database: Option<String>,
    /// Which servers pass.
    pub role: PostgresRole,
    /// Holds the password; without it, to be asked for one is good where any role passes.
    pub password_file: Option<PathBuf>,
}

/// Which PostgreSQL servers pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostgresRole {
    /// Each that lets a session begin.
    #[default]
    Any,
    /// Only one that takes writes.
    Primary,
    /// Only one that follows another.
    Replica,
}

impl PostgresRole {
    pub(super) const ALL: [Self; 3] = [Self::Any, Self::Primary, Self::Replica];

    /// The word for it in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// A MySQL or MariaDB server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlCheck {
    /// Who logs in, without a password unless `password_file` has it. A handshake that is broken off
    /// would make the server block our address after `max_connect_errors`.
    pub user: String,
    /// Holds the password.
    pub password_file: Option<PathBuf>,
}

/// A gRPC server, over HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The service asked for; empty is the server as a whole.
    pub service: String,
    /// The `:authority`; the checked address where `None`.
    pub host: Option<String>,
}

/// A program that is run for each check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCheck {
    /// The program, by its path, and its arguments; never through a shell.
    pub command: Vec<String>,
}

/// A server that says how it is: `up`, `down`, `drain`, `maint`, `ready` or a percentage of its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// Sent once connected; may be empty.
    pub send: Vec<u8>,
}

/// An HTTP/1.1 GET and the answer that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Begins with `/`.
    pub path: String,
    /// The Host header; the checked address where `None`.
    pub host: Option<String>,
    /// Inclusive ranges within 100..=599.
    pub expect_status: Vec<std::ops::RangeInclusive<u16>>,
    /// Looked for in the body.
    pub expect_body: Option<String>,
}
