//! The manual: a page for the program and one for each command, from the same declarations as
//! `--help`, for whoever installs it.
//!
//! Knows nothing of what a command does, nor where pages are installed.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// At the foot of each page.
const SOURCE: &str = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));

/// What the program's own page says beyond `--help`: a heading, and its lines.
const CHAPTERS: [(&str, &str); 4] = [
    (
        "SIGNALS",
        "\
SIGTERM, SIGINT   stop accepting, let connections finish; a second one ends them
SIGHUP            read the configuration again, as evenkeel reload does
SIGUSR2           hand everything over to the program started anew, as evenkeel upgrade does",
    ),
    (
        "EXIT STATUS",
        "\
0   done
1   refused or failed; standard error says what to do
2   wrong usage",
    ),
    (
        "ENVIRONMENT",
        "\
EVENKEEL_SOCKET   admin socket of the running evenkeel
NO_COLOR          no colours, also on a terminal",
    ),
    (
        "FILES",
        "\
/etc/evenkeel/evenkeel.yaml   the configuration
/run/evenkeel/admin.sock      where a running evenkeel is asked",
    ),
];

/// Writes all pages into a folder that is there.
///
/// # Errors
/// Where one cannot be written.
pub(super) fn write(declared: Command, folder: &Path) -> anyhow::Result<()> {
    for (name, page) in pages(declared) {
        let path = folder.join(name);
        fs::write(&path, page)
            .with_context(|| path.display().to_string())
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    }
    Ok(())
}

/// Each page with the name of its file.
fn pages(declared: Command) -> Vec<(String, Vec<u8>)> {
    // Nobody looks for a page about help.
    let mut declared = declared.disable_help_subcommand(true);
    declared.build();
    let commands = declared.get_subcommands();
    let shown: Vec<_> = commands
        .filter(|command| !command.is_hide_set())
        .cloned()
        .collect();
    std::iter::once((declared, CHAPTERS.as_slice()))
        .chain(shown.into_iter().map(|command| (command, [].as_slice())))
        .map(|(command, chapters)| page(command, chapters))
        .collect()
}

fn page(command: Command, chapters: &[(&str, &str)]) -> (String, Vec<u8>) {
    let notes = command.get_after_help().map(ToString::to_string);
    let has_commands = command.has_subcommands();
    // clap_mangen names the command with the version. A date that is empty would go missing, and
    // what follows would take its place.
    let man = Man::new(command).source(SOURCE).date(" ");
    let mut page = Vec::new();
    render(&man, has_commands, &mut page).expect("memory takes what is written");
    let notes = notes.as_deref().map(|text| ("NOTES", text));
    let mut roff = Roff::default();
    for (heading, text) in notes.into_iter().chain(chapters.iter().copied()) {
        verbatim(&mut roff, heading, text);
    }
    roff.to_writer(&mut page)
        .expect("memory takes what is written");
    (man.get_filename(), page)
}

fn render(man: &Man, has_commands: bool, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if has_commands {
        man.render_subcommands_section(page)?;
    }
    Ok(())
}

/// Lines as they stand: clap_mangen would fill them up, and tables and examples with them.
fn verbatim(roff: &mut Roff, heading: &str, text: &str) {
    roff.control("SH", [heading]);
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::Cli;

    fn page_named(name: &str) -> String {
        let pages = pages(Cli::shown());
        let names: Vec<_> = pages.iter().map(|(name, _)| name.clone()).collect();
        let found = pages.into_iter().find(|(named, _)| named == name);
        let (_, page) = found.unwrap_or_else(|| panic!("no {name} in {names:?}"));
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        for command in Cli::shown().get_subcommands() {
            let name = format!("evenkeel-{}.1", command.get_name());
            let pages = pages(Cli::shown());
            let is_there = pages.iter().any(|(named, _)| *named == name);
            assert_eq!(is_there, !command.is_hide_set(), "{name}");
        }
        assert!(page_named("evenkeel.1").contains("evenkeel\\-drain(1)"));
    }

    #[test]
    fn examples_keep_their_lines() {
        let page = page_named("evenkeel-drain.1");
        assert!(page.contains("\\-\\-deadline"), "{page}");
        let examples = page.split(".nf\n").nth(1).unwrap();
        let lines: Vec<_> = examples.lines().collect();
        assert!(
            lines.contains(&"  evenkeel ready web/a") && lines.contains(&".fi"),
            "{page}"
        );
    }
}
