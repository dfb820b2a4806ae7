//! What can be asked for on the command line: every command, its arguments and its help, and the
//! rules between arguments that clap cannot say.
//!
//! Declares only; it knows nothing of what a command does.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use super::connections::Order;
use super::demo::DemoArguments;
use super::examples;
use super::path::ServerName;
use super::{leave, ready_check};
use crate::admin::fleet::Node;
use crate::balance::Algorithm;
use crate::config::NODES_MAX;
use crate::units::{DurationError, Rate, parse_duration};

pub(super) const FILE: &str = "/etc/evenkeel/evenkeel.yaml";

/// As `config` knows it: the path that means standard input.
pub(super) const STDIN: &str = "-";

/// Spreads TCP connections over servers, and stays upright when some of them fall over.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, after_help = examples::ALL, propagate_version = true)]
pub(super) struct Cli {
    /// Admin socket of the running evenkeel [default: EVENKEEL_SOCKET, else
    /// /run/evenkeel/admin.sock].
    #[arg(long, global = true, value_name = "PATH", display_order = 1000)]
    pub(super) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Balance connections until SIGTERM or SIGINT.
    #[command(after_help = examples::RUN)]
    Run(RunArguments),
    /// Read a configuration and say all that is wrong with it, without running it.
    Check {
        #[command(flatten)]
        file: FileArgument,
        /// The same without -c.
        #[arg(value_name = "FILE", conflicts_with = "config")]
        name: Option<PathBuf>,
    },
    /// Say what this machine is too small for, and the line that mends it.
    #[command(after_help = examples::DOCTOR)]
    Doctor {
        #[command(flatten)]
        file: DoctorFileArgument,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// See it work: real servers, a live load and a page in the browser; no file, no root.
    Demo(DemoArguments),
    #[command(flatten)]
    Ask(Ask),
    /// Print what makes a shell complete these commands.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Hold the connections of an evenkeel that may be killed; it starts this by itself.
    #[command(hide = true)]
    Keeper {
        /// Where the next evenkeel finds it.
        #[arg(value_name = "SOCKET")]
        place: PathBuf,
    },
    /// Write the pages of the manual into a folder; `make install` does.
    #[command(hide = true)]
    Man {
        /// The folder, which must be there.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// What is asked of a running process.
#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// Show listeners, pools and servers, and how they are.
    #[command(after_help = examples::STATUS)]
    Status {
        /// Other evenkeels side by side instead, each asked at its admin.http: HOST, HOST:PORT or
        /// [v6]:PORT [default port: 9900]; may be repeated.
        #[arg(long = "node", value_name = "HOST", num_args = 1.., conflicts_with = "socket")]
        nodes: Vec<Node>,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Watch pools and servers live.
    #[command(after_help = examples::TOP_KEYS)]
    Top,
    /// Give a server no new connections; end those that it has at a pace, or not at all.
    #[command(after_help = examples::DRAIN)]
    Drain {
        #[command(flatten)]
        server: ServerArgument,
        #[command(flatten)]
        pace: PaceArguments,
        /// Wait until no connection is left, and show how it goes.
        #[arg(long)]
        wait: bool,
    },
    /// Let a server that was drained or in maintenance take connections again.
    Ready {
        #[command(flatten)]
        server: ServerArgument,
    },
    /// Take a server out and close its connections: at once, or at a pace.
    Maintenance {
        #[command(flatten)]
        server: ServerArgument,
        #[command(flatten)]
        pace: PaceArguments,
    },
    /// Change a server's weight.
    Weight {
        #[command(flatten)]
        server: ServerArgument,
        /// From 0, which is never picked, to 256.
        #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
        weight: u16,
    },
    /// Change how a pool picks its servers.
    Algorithm {
        /// Name of the pool.
        #[arg(value_name = "POOL", value_parser = a_name)]
        pool: String,
        /// Name of the algorithm.
        #[arg(value_name = "NAME", value_parser = algorithms())]
        algorithm: String,
    },
    /// Add a server to a pool.
    Add(AddArguments),
    /// Remove a server; the connections that it has drain.
    Remove {
        #[command(flatten)]
        server: ServerArgument,
        #[command(flatten)]
        pace: PaceArguments,
    },
    /// List connections: who, for how long, how fast, and who limits them.
    #[command(after_help = examples::CONNECTIONS_COLUMNS)]
    Connections(ConnectionsArguments),
    /// Close connections.
    Kill {
        /// As `evenkeel connections` shows them.
        #[arg(value_name = "ID", required = true)]
        ids: Vec<u64>,
    },
    /// Say what a reload would change and how many connections each change touches.
    #[command(after_help = examples::RELOAD)]
    Plan {
        #[command(flatten)]
        file: OtherFileArgument,
    },
    /// Apply a changed file without touching other connections; a bad file changes nothing.
    #[command(after_help = examples::RELOAD)]
    Reload {
        #[command(flatten)]
        file: OtherFileArgument,
        /// Go back after so long, unless `evenkeel confirm` comes before.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        confirm: Option<Duration>,
        /// For the connections of servers that go.
        #[command(flatten)]
        pace: PaceArguments,
    },
    /// Keep what `reload --confirm` applied.
    Confirm,
    /// Take this node out: /readyz says 503, and whoever sends traffic here sends it elsewhere.
    #[command(after_help = leave::EXAMPLES)]
    Leave {
        /// Wait until no connection is left and none has come for 5 s, and show how it goes.
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this.
        #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
        deadline: Option<Duration>,
    },
    /// Undo leave: this node gets traffic again, where nothing else speaks against it.
    Join,
    /// Say by the exit code whether this node should get traffic: for scripts and keepalived.
    #[command(after_help = ready_check::EXAMPLES)]
    ReadyCheck {
        /// No answer within this time is no.
        #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = duration)]
        timeout: Duration,
    },
    /// Start the program anew and hand everything over to it: no connection is lost.
    #[command(after_help = examples::UPGRADE)]
    Upgrade {
        /// The program [default: the one that runs, as it is on the disk now].
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(super) struct FileArgument {
    /// The configuration; - is standard input.
    #[arg(short, long = "config", value_name = "FILE", default_value = FILE)]
    pub(super) config: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct OtherFileArgument {
    /// The configuration [default: the file that evenkeel runs with].
    #[arg(short, long = "config", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct DoctorFileArgument {
    /// The configuration [default: /etc/evenkeel/evenkeel.yaml, or none where it is not there].
    #[arg(short, long = "config", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct OutputArguments {
    /// Print it as JSON: of a running process, what its API answers.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ServerArgument {
    /// The server by the names of its pool and its own; its address where it has none.
    #[arg(value_name = "POOL/SERVER")]
    pub(super) server: ServerName,
}

/// How fast connections are ended.
#[derive(Args, Debug, Default)]
pub(super) struct PaceArguments {
    /// Close at most so many connections in a time, such as 20/s or 100/m.
    #[arg(long, value_name = "N/s")]
    pub(super) rate: Option<Rate>,
    /// First those that have been silent both ways for so long [default: 200ms].
    #[arg(long, value_name = "TIME", requires = "rate", value_parser = duration)]
    pub(super) quiet: Option<Duration>,
    /// Close all that are left after so long [default with --rate: 10m].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) deadline: Option<Duration>,
}

#[derive(Args, Debug)]
pub(super) struct AddArguments {
    /// Name of the pool.
    #[arg(value_name = "POOL", value_parser = a_name)]
    pub(super) pool: String,
    /// Address of the server.
    #[arg(value_name = "ADDR")]
    pub(super) address: String,
    /// Its name [default: its address].
    #[arg(long)]
    pub(super) name: Option<String>,
    /// From 0, which is never picked, to 256 [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(super) weight: Option<u16>,
    /// It takes no more at a time [default: any number].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections: Option<u32>,
    /// Picked only while no other server of the pool can be.
    #[arg(long)]
    pub(super) backup: bool,
}

#[derive(Args, Debug)]
pub(super) struct ConnectionsArguments {
    /// Only those of this pool; none whose pool is yet to be chosen (reading_header).
    #[arg(long, value_name = "POOL")]
    pub(super) pool: Option<String>,
    /// Only those of servers with this name, or of POOL/SERVER; an address where it has none.
    #[arg(long, value_name = "SERVER")]
    pub(super) server: Option<String>,
    /// What comes first: the smallest id, the most of anything else.
    #[arg(long, value_name = "KEY", value_enum, default_value_t)]
    pub(super) sort: Order,
    /// At most so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) file: FileArgument,
    /// Address to listen at, such as 127.0.0.1:8080 or [::1]:8080; may be repeated.
    #[arg(
        long,
        value_name = "ADDR",
        conflicts_with = "config",
        requires = "server"
    )]
    pub(super) listen: Vec<String>,
    /// Server to balance to, with a weight from 0 to 256 [default: 1]; may be repeated.
    #[arg(
        long,
        value_name = "ADDR[@WEIGHT]",
        conflicts_with = "config",
        requires = "listen"
    )]
    pub(super) server: Vec<String>,
    /// How a server is picked: round_robin, least_connections [default], power_of_two, random,
    /// ip_hash, least_time or first.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "config",
        requires = "listen"
    )]
    pub(super) algorithm: Option<String>,
    /// How servers are checked: tcp [default], http:/PATH or off.
    #[arg(
        long,
        value_name = "CHECK",
        conflicts_with = "config",
        requires = "listen"
    )]
    pub(super) check: Option<String>,
    /// Address for the dashboard, metrics and the API, such as 127.0.0.1:9900 [default: off].
    #[arg(
        long,
        value_name = "ADDR",
        conflicts_with = "config",
        requires = "listen"
    )]
    pub(super) admin: Option<String>,
}

impl Cli {
    /// Every command with all of its help.
    pub(super) fn declared() -> clap::Command {
        // The version belongs to the program: `evenkeel run --version` says `evenkeel 0.1.0`.
        Self::shown().mut_subcommands(|each| each.display_name("evenkeel"))
    }

    /// As the manual has it: the way to a process is shown only where one is asked.
    pub(super) fn shown() -> clap::Command {
        let command = Self::command();
        let sockets: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.get_id() == "socket")
            .map(|socket| socket.clone().hide(true))
            .collect();
        command.mut_subcommands(|each| match asks(each.get_name()) {
            true => each,
            // One that a command has itself is not replaced by the one for all.
            false => each.args(&sockets),
        })
    }

    /// Reads arguments, of which the first is the program's name.
    ///
    /// # Errors
    /// Wrong usage; help and the version come this way as well.
    pub(super) fn read(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, clap::Error> {
        let mut declared = Self::declared();
        let matches = declared.try_get_matches_from_mut(arguments)?;
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut declared))?;
        match cli.contradiction() {
            None => Ok(cli),
            Some(text) => Err(declared.error(ErrorKind::ArgumentConflict, text)),
        }
    }

    /// What does not fit together, and what to write.
    fn contradiction(&self) -> Option<&'static str> {
        match &self.command {
            Command::Ask(ask) => ask.contradiction(),
            Command::Doctor { .. } => None,
            _ if self.socket.is_some() => Some(
                "--socket is for commands that ask a running evenkeel; where `run` makes its \
                 socket is `admin.socket` in the configuration",
            ),
            _ => None,
        }
    }
}

impl Ask {
    fn contradiction(&self) -> Option<&'static str> {
        match self {
            Self::Status { nodes, .. } if nodes.len() > NODES_MAX => {
                Some("at most 64 nodes stand side by side: ask for them in groups")
            }
            Self::Drain { pace, wait, .. }
                if pace.deadline.is_some() && pace.rate.is_none() && !wait =>
            {
                Some(
                    "without --rate nobody is cut and nobody waits, so --deadline has no use: add \
                     --wait, or --rate",
                )
            }
            Self::Plan { file } | Self::Reload { file, .. }
                if file
                    .config
                    .as_ref()
                    .is_some_and(|path| path.as_os_str() == STDIN) =>
            {
                Some("the running evenkeel reads the file itself: name one that it can open")
            }
            _ => None,
        }
    }
}

/// Whether a command asks a running process.
fn asks(command: &str) -> bool {
    command == "doctor" || Ask::has_subcommand(command)
}

fn duration(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text)
}

/// Anything that can stand in a path of the API.
fn a_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("write the name of a pool");
    }
    Ok(text.to_owned())
}

fn algorithms() -> PossibleValuesParser {
    PossibleValuesParser::new(Algorithm::ALL.iter().map(|algorithm| algorithm.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        let words = ["evenkeel"].into_iter().chain(line.split_whitespace());
        Cli::read(words.map(Into::into))
    }

    /// What wrong usage is told.
    #[track_caller]
    fn refusal(line: &str) -> String {
        let error = read(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
        error.to_string()
    }

    #[test]
    fn the_declarations_hold_together() {
        Cli::declared().debug_assert();
    }

    #[test]
    fn every_command_of_the_manual_is_read() {
        for line in [
            "run --listen 127.0.0.1:80 --server 127.0.0.1:81 --admin 127.0.0.1:9900",
            "status --json",
            "status --node lb1 lb2:80 [::1]:9900 --json",
            "status --node lb1 --node ::1",
            "top",
            "drain web/a --rate 20/s --quiet 200ms --deadline 10m --wait",
            "drain web/a --wait --deadline 1h",
            "ready web/[::1]:80",
            "maintenance web/a --deadline 10m",
            "weight web/a 256",
            "algorithm web ip_hash",
            "add web 127.0.0.1:81 --name a --weight 0 --max-connections 9 --backup",
            "remove web/a --rate 100/m",
            "connections --pool web --server a --sort rate --limit 9 --json",
            "kill 1 2 3",
            "plan -c x.yaml",
            "plan",
            "reload -c x.yaml --confirm 60s --rate 20/s",
            "confirm",
            "leave",
            "leave --wait --deadline 10m",
            "join",
            "ready-check",
            "ready-check --timeout 20ms --socket /x",
            "upgrade",
            "upgrade --binary new/evenkeel --socket /x",
            "completions fish",
            "man /tmp",
            "doctor",
            "doctor -c x.yaml --json --socket /x",
            "--socket /x status",
            "status --socket /x",
        ] {
            assert!(read(line).is_ok(), "{line}: {}", refusal(line));
        }
    }

    #[test]
    fn a_deadline_that_nobody_would_look_at_is_refused() {
        let text = refusal("drain web/a --deadline 10m");
        assert!(text.contains("add --wait, or --rate"), "{text}");
        assert!(read("drain web/a --deadline 10m --rate 1/s").is_ok());
        assert!(refusal("leave --deadline 10m").contains("--wait"));
        // Those of the other commands go to the process.
        assert!(read("remove web/a --deadline 10m").is_ok());
    }

    #[test]
    fn a_quiet_without_a_rate_is_refused() {
        for command in ["drain", "maintenance", "remove"] {
            let text = refusal(&format!("{command} web/a --quiet 200ms"));
            assert!(text.contains("--rate"), "{text}");
        }
    }

    #[test]
    fn wrong_values_are_told_what_to_write() {
        for (line, advice) in [
            ("drain web", "POOL/SERVER, such as web/a"),
            ("drain web/a --rate 20", "20/s, 100/m or 5/h"),
            ("drain web/a --rate 1/s --deadline 10", "unit"),
            ("weight web/a 257", "0..=256"),
            ("algorithm web fastest", "power_of_two"),
            ("connections --limit 0", "1.."),
            ("kill x", "invalid digit"),
            ("status --node", "<HOST>"),
            ("status --node lb1 http://lb2", "without a scheme"),
            ("status --node lb1:99999", "1 to 65535"),
            ("status --node lb1 --socket /x", "cannot be used with"),
            ("kill", "<ID>"),
        ] {
            let text = refusal(line);
            assert!(text.contains(advice), "{line}: {text}");
        }
    }

    #[test]
    fn only_the_program_that_runs_reads_a_standard_input() {
        for line in ["plan -c -", "reload -c -"] {
            assert!(refusal(line).contains("name one that it can open"));
        }
        assert!(read("check -").is_ok());
    }

    #[test]
    fn a_socket_is_for_those_who_ask() {
        for line in [
            "run --socket /x",
            "--socket /x check",
            "completions zsh --socket /x",
        ] {
            assert!(refusal(line).contains("admin.socket"));
        }
    }

    #[test]
    fn a_socket_is_shown_to_those_who_ask() {
        for command in Cli::declared().get_subcommands() {
            let name = command.get_name().to_owned();
            let help = read(&format!("{name} --help")).unwrap_err().to_string();
            let is_shown = help.contains("--socket");
            let asks_nobody = ["run", "check", "demo", "completions", "keeper", "man"];
            assert_ne!(is_shown, asks_nobody.contains(&&*name), "{name}: {help}");
        }
    }

    #[test]
    fn a_file_says_itself_where_its_dashboard_is() {
        let text = refusal("run -c x.yaml --admin 127.0.0.1:9900");
        assert!(text.contains("cannot be used with"), "{text}");
        refusal("run --admin 127.0.0.1:9900");
    }
}
