//! The house rules, checked: which module may know which, sizes, where `unsafe` may stand, words,
//! what the documents must mention, and licences.
//!
//! It reads the sources as text and knows nothing of what they do. Function sizes, nesting and
//! argument counts are clippy's (clippy.toml). A rule that is broken names the file and the line;
//! all that are broken are named at once.

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use evenkeel::end::End;

use source::{Source, files_below, parts_of, root, shown, sources};

/// Modules from the bottom up. One may know those of lower layers, and of its own layer those that
/// `src/lib.rs` lists before it.
const LAYERS: &[&[&str]] = &[
    // Leaves.
    &[
        "address", "bind", "clock", "end", "ids", "sys", "systemd", "timers", "units", "wire",
    ],
    // Pure decisions.
    &[
        "admission",
        "balance",
        "config",
        "handover",
        "park",
        "relay",
    ],
    // Shared running state.
    &["mailbox", "pool", "roster", "telemetry"],
    THREADS,
    // Wiring: knows everyone.
    &["process"],
    // What the machine must have for it.
    &["doctor"],
    // Something to look at, around a process.
    &["demo"],
    // The program: asks for all of it.
    &["cli"],
];

/// Each owns a loop. They talk through mailboxes and never know each other.
const THREADS: &[&str] = &["admin", "prober", "resolver", "worker"];

/// Words that the vocabulary (CONTRIBUTING.md) replaces, or that say nothing.
const PUSHED_OUT: &[&str] = &[
    "backend",
    "backends",
    "frontend",
    "frontends",
    "handler",
    "manager",
    "reactor",
    "tunnel",
    "util",
    "utils",
];

/// What stands before a name that is given.
const NAMING: &[&str] = &[
    "const", "enum", "fn", "let", "mod", "mut", "static", "struct", "trait", "type",
];

const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX", "dbg!", "todo!", "unimplemented!"];

/// Without tests.
const LINES_MAX: usize = 500;

const LICENCES: &[&str] = &[
    "Apache-2.0",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

#[test]
fn modules_know_only_those_below_them() {
    let order = modules_of_the_library();
    let position = |module: &str| order.iter().position(|listed| listed == module);
    let mut broken = Vec::new();
    let mut layer_before = 0;
    for module in &order {
        match layer_of(module) {
            None => broken.push(format!(
                "src/lib.rs: `{module}` has no layer in tests/tidy.rs"
            )),
            Some(layer) if layer < layer_before => {
                broken.push(format!("src/lib.rs: `{module}` stands below its layer"));
            }
            Some(layer) => layer_before = layer,
        }
    }
    for source in sources() {
        let Some(importer) = source.module() else {
            continue;
        };
        for (line, imported) in source.imports() {
            if imported == importer || position(&imported).is_none() {
                continue;
            }
            let are_threads = [&importer, &imported].map(|m| THREADS.contains(&m.as_str()));
            if position(&imported) > position(&importer) || are_threads == [true, true] {
                broken.push(source.at(line, &format!("`{importer}` must not know `{imported}`")));
            }
        }
    }
    assert_kept(&broken);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.code.lines().count();
        if lines > LINES_MAX && !source.is_test() {
            broken.push(source.at(
                lines,
                &format!("{lines} lines without tests, not {LINES_MAX}"),
            ));
        }
        if !source.text.starts_with("//!") {
            broken.push(source.at(
                1,
                "a file opens with `//!`: what it owns, what it must not know",
            ));
        }
        if source.has_children() {
            broken.push(source.at(1, "a module with children is its folder's mod.rs"));
        }
    }
    assert_kept(&broken);
}

#[test]
fn unsafe_code_and_libc_stay_in_sys() {
    let mut broken = Vec::new();
    for source in sources()
        .iter()
        .filter(|s| s.module().as_deref() != Some("sys"))
    {
        for (line, words) in source.words() {
            if words.iter().any(|word| word == "unsafe" || word == "libc") {
                broken.push(source.at(line, "`unsafe` and `libc` belong in src/sys"));
            }
        }
    }
    assert_kept(&broken);
}

#[test]
fn nothing_is_left_over() {
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(leftover) = LEFTOVERS.iter().find(|leftover| line.contains(**leftover)) {
                broken.push(source.at(number + 1, &format!("`{leftover}` is left over")));
            }
        }
        let talks = source.is_test()
            || matches!(source.module().as_deref(), None | Some("cli" | "process"));
        for (number, line) in source.code.lines().enumerate() {
            if !talks && (line.contains("println!(") || line.contains("print!(")) {
                broken.push(source.at(number + 1, "only `cli` and `process` talk to the terminal"));
            }
        }
    }
    assert_kept(&broken);
}

#[test]
fn names_use_one_vocabulary() {
    let mut broken = Vec::new();
    for source in sources() {
        for (line, words) in source.words() {
            // What others named is theirs: only a name that is given here counts.
            let pairs = words.iter().zip(words.iter().skip(1));
            let given = pairs.filter(|(word, _)| NAMING.contains(&word.as_str()));
            if let Some((_, name)) = given.clone().find(|(_, name)| is_getter(name)) {
                broken.push(source.at(line, &format!("`{name}` is named by what it gives")));
            }
            let parts = given.flat_map(|(_, name)| parts_of(name));
            for part in parts.filter(|part| PUSHED_OUT.contains(&part.as_str())) {
                broken.push(source.at(line, &format!("`{part}` is not a word of ours")));
            }
        }
    }
    assert_kept(&broken);
}

#[test]
fn every_end_is_documented_and_used() {
    let documents = documents();
    let code: String = sources()
        .iter()
        .filter(|source| source.module().as_deref() != Some("end"))
        .map(|source| source.code.as_str())
        .collect();
    let mut broken = Vec::new();
    for end in End::ALL {
        let word = end.word();
        if !documents.contains(&format!("`{word}`")) {
            broken.push(format!("docs: the end `{word}` is not explained"));
        }
        // Those of a side are made by a function of the side.
        let made_by_side = match end {
            End::ClientClosed | End::ServerClosed => "End::closed(",
            End::ClientReset | End::ServerReset => "End::reset(",
            _ => "End::ALL is not a use",
        };
        if !code.contains(&format!("End::{end:?}")) && !code.contains(made_by_side) {
            broken.push(format!("src: no connection ends with End::{end:?}"));
        }
    }
    assert_kept(&broken);
}

#[test]
fn every_config_key_is_documented() {
    let example =
        fs::read_to_string(root().join("conf/evenkeel.yaml")).expect("the example is there");
    let manual =
        fs::read_to_string(root().join("docs/configuration.md")).expect("the manual is there");
    let broken: Vec<_> = keys_of(&example)
        .into_iter()
        .filter(|key| !manual.contains(&format!("`{key}`")))
        .map(|key| {
            format!("docs/configuration.md: the key `{key}` of conf/evenkeel.yaml is missing")
        })
        .collect();
    assert_kept(&broken);
}

#[test]
fn documents_point_to_what_is_there() {
    let mut broken = Vec::new();
    for path in document_paths() {
        let text = fs::read_to_string(&path).expect("a document is UTF-8");
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            let is_elsewhere = target.contains("://") || target.is_empty();
            let folder = path.parent().expect("a file is in a folder");
            if !is_elsewhere && !folder.join(target).exists() {
                broken.push(format!("{}: there is no {target}", shown(&path)));
            }
        }
    }
    assert_kept(&broken);
}

#[test]
fn the_readme_is_short_and_its_test_command_is_what_ci_runs() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README is there");
    let ci = fs::read_to_string(root().join(".ci/run")).expect(".ci/run is there");
    assert!(readme.lines().count() <= 250);
    assert!(readme.lines().any(|line| line == "make test"));
    assert!(ci.contains("make test"));
}

#[test]
fn dependencies_have_a_licence_that_we_may_use() {
    let metadata = cargo_metadata();
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo lists packages");
    let licences = packages
        .iter()
        .map(|p| (p["name"].as_str(), p["license"].as_str()));
    let broken: Vec<_> = licences
        .filter(|(_, licence)| !licence.is_some_and(may_be_used))
        .map(|(name, licence)| format!("{name:?}: its licence is {licence:?}"))
        .collect();
    assert_kept(&broken);
}

#[test]
fn dependencies_have_a_reason() {
    let metadata = cargo_metadata();
    let reasons = fs::read_to_string(root().join("docs/architecture.md")).expect("it is there");
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo lists packages");
    let us = packages
        .iter()
        .find(|package| package["name"] == "evenkeel")
        .expect("we are listed");
    let listed = us["dependencies"].as_array().expect("a list").iter();
    let wanted: BTreeSet<_> = listed
        .filter_map(|d| d["rename"].as_str().or(d["name"].as_str()))
        .collect();
    let (_, table) = reasons
        .split_once("## Dependencies")
        .expect("the section is there");
    let cells = table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .filter(|cell| cell.contains('`'));
    let explained: BTreeSet<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(
        wanted, explained,
        "Cargo.toml on the left, docs/architecture.md on the right"
    );
}

#[test]
fn dependencies_are_used() {
    let metadata = cargo_metadata();
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo lists packages");
    let us = packages
        .iter()
        .find(|package| package["name"] == "evenkeel")
        .expect("we are listed");
    let listed = us["dependencies"].as_array().expect("a list").iter();
    let needed = listed.filter(|dependency| dependency["kind"].is_null());
    let used: BTreeSet<_> = sources()
        .iter()
        .flat_map(Source::words)
        .flat_map(|(_, words)| words)
        .collect();
    let broken: Vec<_> = needed
        .filter_map(|dependency| {
            dependency["rename"]
                .as_str()
                .or(dependency["name"].as_str())
        })
        .filter(|name| !used.contains(&name.replace('-', "_")))
        .map(|name| format!("Cargo.toml: nothing uses `{name}`"))
        .collect();
    assert_kept(&broken);
}

/// Whoever sends what `wire` reads may be hostile.
#[test]
fn every_parser_of_wire_has_a_fuzz_target_that_runs() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("it is there");
    let wire = Source::read(root().join("src/wire/mod.rs"));
    let mut paths = Vec::new();
    files_below(&root().join("fuzz/fuzz_targets"), "rs", &mut paths);
    let mut broken = Vec::new();
    let mut targets = String::new();
    for path in &paths {
        targets += &fs::read_to_string(path).expect("a target is UTF-8");
        let name = path.file_name().expect("a file").to_string_lossy();
        // What is not listed there, cargo-fuzz and `scripts/fuzz` do not know.
        if !manifest.contains(&format!("path = \"fuzz_targets/{name}\"")) {
            broken.push(format!("fuzz/Cargo.toml: {name} is missing"));
        }
    }
    for line in wire.code.lines() {
        let parser = line
            .strip_prefix("pub mod ")
            .map(|name| name.trim_end_matches(';'));
        if let Some(name) = parser.filter(|name| !targets.contains(&format!("{name}::"))) {
            broken.push(format!("fuzz/fuzz_targets: none uses wire::{name}"));
        }
    }
    assert_kept(&broken);
}

/// Shown, not judged: a figure to look at in a review.
#[test]
fn comment_density_is_printed() {
    let (mut comments, mut lines) = (0, 0);
    for source in sources().iter().filter(|source| !source.is_test()) {
        let written = source.text.lines().take(source.code.lines().count());
        for line in written.map(str::trim).filter(|line| !line.is_empty()) {
            lines += 1;
            comments += usize::from(line.starts_with("//"));
        }
    }
    println!(
        "{comments} of {lines} lines are comments: {} %",
        comments * 100 / lines.max(1)
    );
}

/// Keys of a YAML file in block style, also those that are commented out. What stands right below
/// `listeners` and `pools` is a name of the user's choice.
fn keys_of(yaml: &str) -> BTreeSet<&str> {
    let mut keys = BTreeSet::new();
    let mut key_before = "";
    for line in yaml.lines() {
        let line = line.trim_start_matches(['#', ' ', '-']);
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        let is_key = key
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if is_key && !["listeners", "pools"].contains(&key_before) {
            keys.insert(key);
        }
        key_before = if is_key { key } else { key_before };
    }
    keys
}

/// `get_mut` is what the standard library calls it everywhere.
fn is_getter(name: &str) -> bool {
    name.starts_with("get_") && name != "get_mut"
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn modules_of_the_library() -> Vec<String> {
    let library = Source::read(root().join("src/lib.rs"));
    let modules = library.code.lines().filter_map(|line| {
        let name = line
            .trim()
            .strip_prefix("pub ")
            .unwrap_or(line.trim())
            .strip_prefix("mod ")?;
        Some(name.trim_end_matches(';').to_owned())
    });
    modules.collect()
}

fn may_be_used(licence: &str) -> bool {
    let is_listed = |word: &str| LICENCES.contains(&word.trim().trim_matches(['(', ')']));
    let licence = licence.replace('/', " OR ");
    licence
        .split(" AND ")
        .all(|needed| needed.split(" OR ").any(is_listed))
}

/// Of this platform alone: others' packages need not be downloaded.
fn cargo_metadata() -> serde_json::Value {
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--locked",
            "--filter-platform",
        ])
        .arg(platform)
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn document_paths() -> Vec<PathBuf> {
    let mut paths: Vec<_> = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ]
    .iter()
    .map(|name| root().join(name))
    .collect();
    files_below(&root().join("docs"), "md", &mut paths);
    paths
}

fn documents() -> String {
    document_paths()
        .iter()
        .map(|path| fs::read_to_string(path).expect("a document is UTF-8"))
        .collect()
}

#[track_caller]
fn assert_kept(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}
