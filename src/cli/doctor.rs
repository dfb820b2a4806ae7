//! `evenkeel doctor`: what of this machine is too small for a configuration, and the line that mends
//! it.
//!
//! What is looked at, and how it is judged, is `doctor`'s; here are the way to a configuration and to
//! a process that runs, and how findings look.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

use super::arguments::FILE;
use super::output::{Paper, Tone, print, print_json};
use super::remote::Remote;
use super::table::{Cell, Column, Table, Yield};
use crate::config::{self, AdminSocket, Arguments, Config};
use crate::doctor::{Basis, Diagnosis, Finding, Machine, Status, examine};
use crate::units::counted;

/// Prints every finding, the most severe first, and what to do about them.
///
/// # Errors
/// Where the file cannot be used, and where something is too small.
pub(super) fn doctor(
    file: Option<&Path>,
    as_json: bool,
    socket: Option<PathBuf>,
) -> anyhow::Result<()> {
    let (name, config) = subject(file)?;
    let machine = Machine::here(running(socket, &config));
    let diagnosis = examine(&machine, &config);
    let process = machine.process();
    match as_json {
        true => print_json(&as_value(&name, process, &diagnosis))?,
        false => print(&text(&name, process, &diagnosis, Paper::standard()))?,
    }
    verdict(&diagnosis.findings)
}

/// The configuration, and its name if it is in a file.
fn subject(file: Option<&Path>) -> anyhow::Result<(Option<String>, Config)> {
    let default = Path::new(FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    match file {
        Some(file) => Ok((Some(config::name_of(file)), super::load(file)?)),
        None => Ok((None, without_file()?)),
    }
}

/// What `run --listen --server` has where nothing else is said.
fn without_file() -> anyhow::Result<Config> {
    Ok(config::from_arguments(&Arguments {
        listen: vec!["0.0.0.0:8080".to_owned()],
        // Of TEST-NET-1: a server on another machine.
        server: vec!["192.0.2.1:8080".to_owned()],
        ..Arguments::default()
    })?)
}

/// The process at the admin socket, if there is one that says its number.
fn running(socket: Option<PathBuf>, config: &Config) -> Option<u32> {
    let own = match &config.admin.socket {
        AdminSocket::At(path) => Some(path.clone()),
        AdminSocket::Default | AdminSocket::Off => None,
    };
    let answer = Remote::near(socket, own).fetch("/api/v1/status").ok()?;
    u32::try_from(answer["pid"].as_u64()?).ok()
}

/// What is at fault as an error, for the exit code and for who reads standard error alone.
fn verdict(findings: &[Finding]) -> anyhow::Result<()> {
    let faults = findings.iter().filter(|finding| finding.status.is_fault());
    let names: Vec<_> = faults.map(|finding| finding.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let (count, names) = (counted(names.len() as u64, "fault"), names.join(", "));
    bail!("{count} of {}: {names}", findings.len())
}

fn as_value(name: &Option<String>, process: Option<u32>, diagnosis: &Diagnosis<'_>) -> Value {
    let Diagnosis { wants, findings } = diagnosis;
    json!({
        "file": name,
        "pid": process,
        "connections": wants.connections,
        "basis": wants.basis,
        "workers": wants.workers,
        "faults": findings.iter().filter(|finding| finding.status.is_fault()).count(),
        "findings": findings,
    })
}

fn text(
    name: &Option<String>,
    process: Option<u32>,
    diagnosis: &Diagnosis<'_>,
    paper: Paper,
) -> String {
    let mut text = heading(name.as_deref(), process, diagnosis);
    text.push('\n');
    text.push_str(&table(&diagnosis.findings).shown(paper));
    for finding in &diagnosis.findings {
        text.push_str(&advice(finding, paper));
    }
    text
}

fn heading(name: Option<&str>, process: Option<u32>, diagnosis: &Diagnosis<'_>) -> String {
    let wants = &diagnosis.wants;
    let name = name.unwrap_or("no file, so one listener and one server elsewhere");
    let workers = counted(wants.workers as u64, "worker");
    let mut text = format!("{name}: {}, {workers}\n", wants.said());
    if wants.basis == Basis::Assumed {
        text.push_str("max_connections is auto: write it to see what so many need\n");
    }
    text.push_str(&match process {
        Some(number) => format!("limits are those of the running process {number}\n"),
        None => "no evenkeel answers: limits are those of this shell, a unit's may differ\n".into(),
    });
    text
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&[
        Column::text("STATUS", Yield::Never),
        Column::text("WHAT", Yield::Never),
        Column::text("IS", Yield::Shrinks(8)),
        Column::text("NEEDED", Yield::Shrinks(8)),
        Column::text("WHY", Yield::Shrinks(20)),
    ]);
    for finding in findings {
        table.row(vec![
            Cell::toned(finding.status.word(), tone(finding.status)),
            Cell::from(finding.name),
            Cell::from(finding.found.as_deref().unwrap_or("-")),
            Cell::from(finding.needed.as_deref().unwrap_or("-")),
            Cell::from(&finding.why),
        ]);
    }
    table
}

fn tone(status: Status) -> Tone {
    match status {
        Status::Low | Status::Wrong => Tone::Bad,
        Status::Unknown => Tone::Warning,
        Status::Ok => Tone::Good,
    }
}

/// What comes of a fault, and the line against it; nothing for what is none.
fn advice(finding: &Finding, paper: Paper) -> String {
    let (Some(effect), Some(fix)) = (&finding.effect, &finding.fix) else {
        return String::new();
    };
    let name = paper.paint(Tone::Strong, finding.name);
    format!("\n{name}\n  then: {effect}\n  mend: {fix}\n")
}
