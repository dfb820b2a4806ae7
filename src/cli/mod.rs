//! The command line: what can be asked for, its help, and the exit code: 0 done, 1 refused or failed
//! with the reason on stderr, 2 wrong usage.
//!
//! Knows every command's name and arguments; what a command does is in a file of its own, or in
//! `process` for `run`.

mod check;
mod demo;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Arguments, Config, LoadError, Mistakes};
use crate::process::{self, Start};

const FILE: &str = "/etc/evenkeel/evenkeel.yaml";

const HOW_WITHOUT: &str =
    "name one with -c FILE, or do without: evenkeel run --listen ADDR --server ADDR";

const EXAMPLES: &str = "\
Examples:
  evenkeel run --listen 127.0.0.1:8080 --server 127.0.0.1:9001 --server 127.0.0.1:9002
  evenkeel check evenkeel.yaml
  evenkeel run -c evenkeel.yaml";

const RUN_EXAMPLES: &str = "\
Examples:
  evenkeel run
      as /etc/evenkeel/evenkeel.yaml says
  evenkeel run -c evenkeel.yaml
      as another file says
  evenkeel run --listen 127.0.0.1:8080 --server 127.0.0.1:9001 --server 127.0.0.1:9002
      without a file: one listener and one pool, both called default
  evenkeel run --listen 0.0.0.0:80 --server 10.0.0.11:80@3 --server 10.0.0.12:80 \\
               --algorithm round_robin --check http:/health
      three quarters of the connections go to the first server";

/// Spreads TCP connections over servers, and stays upright when some of them fall over.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance connections until SIGTERM or SIGINT.
    #[command(after_help = RUN_EXAMPLES, display_name = "evenkeel")]
    Run(RunArguments),
    /// Read a configuration and say all that is wrong with it, without running it.
    #[command(display_name = "evenkeel")]
    Check {
        #[command(flatten)]
        file: FileArgument,
        /// The same without -c.
        #[arg(value_name = "FILE", conflicts_with = "config")]
        name: Option<PathBuf>,
    },
    /// See it work: real servers, a live load and a page in the browser; no file, no root.
    #[command(display_name = "evenkeel")]
    Demo(demo::DemoArguments),
}

#[derive(Args, Debug)]
struct FileArgument {
    /// The configuration; - is standard input.
    #[arg(short, long = "config", value_name = "FILE", default_value = FILE)]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct RunArguments {
    #[command(flatten)]
    file: FileArgument,
    /// Address to listen at, such as 127.0.0.1:8080 or [::1]:8080; may be repeated.
    #[arg(
        long,
        value_name = "ADDR",
        conflicts_with = "config",
        requires = "server"
    )]
    listen: Vec<String>,
    /// Server to balance to, with a weight from 0 to 256 [default: 1]; may be repeated.
    #[arg(
        long,
        value_name = "ADDR[@WEIGHT]",
        conflicts_with = "config",
        requires = "listen"
    )]
    server: Vec<String>,
    /// How a server is picked: round_robin, least_connections [default], power_of_two, random,
    /// ip_hash, least_time or first.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "config",
        requires = "listen"
    )]
    algorithm: Option<String>,
    /// How servers are checked: tcp [default], http:/PATH or off.
    #[arg(
        long,
        value_name = "CHECK",
        conflicts_with = "config",
        requires = "listen"
    )]
    check: Option<String>,
}

/// Does what the arguments ask for; `arguments` begins with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return show_usage(&error),
    };
    let outcome = match cli.command {
        Command::Run(arguments) => run_process(arguments),
        Command::Check { file, name } => check::check(&name.unwrap_or(file.config)),
        Command::Demo(arguments) => demo::demo(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not as a chain: each error's text has its cause in it. Nor with eprintln, which panics
            // where stderr is full: the exit code is all that is left to say then.
            drop(writeln!(io::stderr(), "{error}"));
            exit_code(&error)
        }
    }
}

/// A mistake in a file is a failure, the same mistake in the arguments is wrong usage.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage = error.downcast_ref::<Mistakes>().is_some();
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Help and version are answers as well, on stdout with exit code 0; wrong usage is 2 on stderr.
fn show_usage(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() { 2 } else { 0 };
    match error.print() {
        // An answer that nobody got is a failure; wrong usage stays what it is.
        Err(_) if code == 0 => ExitCode::FAILURE,
        _ => ExitCode::from(code),
    }
}

fn run_process(arguments: RunArguments) -> anyhow::Result<()> {
    let config = if arguments.listen.is_empty() {
        load(&arguments.file.config)?
    } else {
        config::from_arguments(&Arguments {
            listen: arguments.listen,
            server: arguments.server,
            algorithm: arguments.algorithm,
            check: arguments.check,
        })?
    };
    Ok(process::run(Start {
        config,
        file: None,
        exhibit: None,
    })?)
}

/// Reads a configuration; where there is none, says how one comes about.
fn load(path: &Path) -> anyhow::Result<Config> {
    match config::load(path) {
        Err(LoadError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            anyhow::bail!("{}: there is no such file, {HOW_WITHOUT}", path.display())
        }
        config => Ok(config?),
    }
}
