//! The command line: what can be asked for, its help, and the exit code: 0 done, 1 refused or failed
//! with the reason on stderr, 2 wrong usage.
//!
//! Brings the arguments (`arguments`) to the command that they name; what a command does is in the
//! file of its family, or in `process` for `run`. Commands that ask a running evenkeel go through
//! `remote` and never know how it is reached.

mod arguments;
mod changes;
mod check;
mod connections;
mod demo;
mod doctor;
mod drain;
mod examples;
mod figures;
mod fleet;
mod keeper;
mod leave;
mod man;
mod output;
mod path;
mod ready_check;
mod remote;
mod status;
mod steer;
mod table;
mod top;
mod upgrade;
mod view;
mod watch;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

use anyhow::bail;
use clap_complete::Shell;

use self::arguments::{Ask, Cli, Command, RunArguments};
use self::remote::Remote;
use crate::config::{self, Arguments, Config, LoadError, Mistakes};
use crate::process::{self, Predecessor, Start, StartError, SuccessionError};

const HOW_WITHOUT: &str =
    "name one with -c FILE, or do without: evenkeel run --listen ADDR --server ADDR";

/// Does what the arguments ask for; `arguments` begins with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => return show_usage(&error),
    };
    let outcome = match cli.command {
        Command::Run(arguments) => run_process(arguments),
        Command::Check { file, name } => check::check(&name.unwrap_or(file.config)),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Doctor { file, output } => {
            doctor::doctor(file.config.as_deref(), output.json, cli.socket)
        }
        Command::Ask(ask) => answer(&ask, &Remote::new(cli.socket)),
        Command::Completions { shell } => completions(shell),
        Command::Keeper { place } => keeper::keep(&place),
        Command::Man { folder } => man::write(Cli::shown(), &folder),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not as a chain: each error's text has its cause in it. Nor with eprintln, which panics
            // where stderr is full: the exit code is all that is left to say then.
            if !is_told(&error) {
                drop(writeln!(io::stderr(), "{error}"));
            }
            exit_code(&error)
        }
    }
}

fn answer(ask: &Ask, remote: &Remote) -> anyhow::Result<()> {
    match ask {
        Ask::Status { nodes, output } if nodes.is_empty() => status::status(remote, output.json),
        Ask::Status { nodes, output } => fleet::fleet(nodes, output.json),
        Ask::Top => top::top(remote),
        Ask::Drain { server, pace, wait } => drain::drain(remote, &server.server, pace, *wait),
        Ask::Ready { server } => steer::ready(remote, &server.server),
        Ask::Maintenance { server, pace } => steer::maintenance(remote, &server.server, pace),
        Ask::Weight { server, weight } => steer::weight(remote, &server.server, *weight),
        Ask::Algorithm { pool, algorithm } => steer::algorithm(remote, pool, algorithm),
        Ask::Add(wish) => steer::add(remote, wish),
        Ask::Remove { server, pace } => steer::remove(remote, &server.server, pace),
        Ask::Connections(arguments) => connections::connections(remote, arguments),
        Ask::Kill { ids } => steer::kill(remote, ids),
        Ask::Plan { file } => changes::plan(remote, file.config.as_deref()),
        Ask::Reload {
            file,
            confirm,
            pace,
        } => changes::reload(remote, file.config.as_deref(), *confirm, pace),
        Ask::Confirm => steer::confirm(remote),
        Ask::Leave { wait, deadline } => leave::leave(remote, wait.then_some(*deadline)),
        Ask::Join => leave::join(remote),
        Ask::ReadyCheck { timeout } => ready_check::ready_check(remote, *timeout),
        Ask::Upgrade { binary } => upgrade::upgrade(remote, binary.as_deref()),
    }
}

/// Prints the script that a shell reads.
fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::declared(), "evenkeel", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// A mistake in a file is a failure, the same mistake in the arguments is wrong usage.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage = error.downcast_ref::<Mistakes>().is_some();
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// In an upgrade the other process tells it, in the same log.
fn is_told(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref();
    matches!(
        error,
        Some(StartError::Succession(SuccessionError::Told(_)))
    )
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

/// Whoever hands over to this process is told of all that is wrong.
fn run_process(arguments: RunArguments) -> anyhow::Result<()> {
    let predecessor = Predecessor::find()?;
    match start_of(arguments) {
        Ok(start) => Ok(process::run(Start {
            predecessor,
            ..start
        })?),
        Err(error) => {
            let is_told = predecessor.is_some_and(|mut it| it.refuse(&error));
            match is_told {
                true => bail!(StartError::from(SuccessionError::Told(error.to_string()))),
                false => Err(error),
            }
        }
    }
}

fn start_of(arguments: RunArguments) -> anyhow::Result<Start> {
    let start = if arguments.listen.is_empty() {
        let file = arguments.file.config;
        let (config, digest) = load_with_digest(&file)?;
        Start {
            config,
            file: file_to_reload(&file),
            digest: Some(digest),
            exhibit: None,
            predecessor: None,
        }
    } else {
        let config = config::from_arguments(&Arguments {
            listen: arguments.listen,
            server: arguments.server,
            algorithm: arguments.algorithm,
            check: arguments.check,
            admin: arguments.admin,
        })?;
        Start {
            config,
            file: None,
            digest: None,
            exhibit: None,
            predecessor: None,
        }
    };
    Ok(start)
}

/// Where a reload finds the file again: standard input is read only once.
fn file_to_reload(file: &Path) -> Option<PathBuf> {
    let is_file = file.as_os_str() != arguments::STDIN;
    is_file.then(|| absolute(file).unwrap_or_else(|_| file.to_owned()))
}

/// Reads a configuration; where there is none, says how one comes about.
fn load(path: &Path) -> anyhow::Result<Config> {
    load_with_digest(path).map(|(config, _)| config)
}

/// The same, with the digest of what was read.
fn load_with_digest(path: &Path) -> anyhow::Result<(Config, String)> {
    match config::load_with_digest(path) {
        Err(LoadError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {
            bail!("{}: there is no such file, {HOW_WITHOUT}", path.display())
        }
        config => Ok(config?),
    }
}
