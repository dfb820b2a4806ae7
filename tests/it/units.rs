//! What is installed: which files, what becomes of them, and whether systemd takes the units for
//! sound and safe. `scripts/systemd-test` runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::program::binary;
use crate::harness::tools::{succeed, tool};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that evenkeel is installed into, as into `/`.
struct Installed {
    folder: TempDir,
}

impl Installed {
    fn new() -> Self {
        let installed = Self {
            folder: TempDir::new().unwrap(),
        };
        installed.run(&[]);
        installed
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(format!("{ROOT}/scripts/install"));
        command
            .args(arguments)
            .env("DESTDIR", self.folder.path())
            .env("PREFIX", "/opt")
            .env("BINARY", binary())
            .env_remove("SYSCONFDIR");
        succeed(&mut command);
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    /// Every file below, in order, without `folder` before its path.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(self.folder.path(), &mut found);
        let below = |path: PathBuf| {
            let path = path.strip_prefix(self.folder.path()).unwrap();
            path.display().to_string()
        };
        let mut files: Vec<_> = found.into_iter().map(below).collect();
        files.sort();
        files
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn everything_has_its_place_below_destdir_and_prefix() {
    let installed = Installed::new();
    let files = installed.files();
    for expected in [
        "etc/evenkeel/evenkeel.yaml",
        "etc/logrotate.d/evenkeel",
        "opt/bin/evenkeel",
        "opt/lib/systemd/system/evenkeel.service",
        "opt/lib/systemd/system/evenkeel.socket",
        "opt/lib/sysusers.d/evenkeel.conf",
        "opt/lib/tmpfiles.d/evenkeel.conf",
        "opt/share/bash-completion/completions/evenkeel",
        "opt/share/doc/evenkeel/examples/ha/gdnsd/config",
        "opt/share/doc/evenkeel/examples/ha/gdnsd/evenkeel.yaml",
        "opt/share/doc/evenkeel/examples/ha/gdnsd/zones/lb.example.com",
        "opt/share/doc/evenkeel/examples/web.yaml",
        "opt/share/doc/evenkeel/operations.md",
        "opt/share/fish/vendor_completions.d/evenkeel.fish",
        "opt/share/man/man1/evenkeel-drain.1",
        "opt/share/man/man1/evenkeel.1",
        "opt/share/zsh/site-functions/_evenkeel",
    ] {
        let is_there = files.iter().any(|file| file == expected);
        assert!(is_there, "{expected} is not among {files:#?}");
    }
    let unit = installed.read("opt/lib/systemd/system/evenkeel.service");
    assert!(unit.contains("\nExecStart=/opt/bin/evenkeel run "));
    assert!(!unit.contains("/usr/bin/"), "{unit}");
}

#[test]
fn an_uninstallation_leaves_what_an_operator_wrote_and_nothing_else() {
    let installed = Installed::new();
    let config = "etc/evenkeel/evenkeel.yaml";
    fs::write(installed.path(config), "# Mine.\n").unwrap();
    installed.run(&[]);
    assert_eq!(installed.read(config), "# Mine.\n", "overwritten");
    installed.run(&["--remove"]);
    assert_eq!(installed.files(), [config]);
    // Nothing to remove is no mistake.
    installed.run(&["--remove"]);
}

#[test]
fn the_first_configuration_is_good() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(format!("{ROOT}/conf/installed.yaml")).unwrap();
    let log = "/var/log/evenkeel";
    assert!(text.contains(log));
    let file = folder.path().join("evenkeel.yaml");
    let here = folder.path().display().to_string();
    fs::write(&file, text.replace(log, &here)).unwrap();
    let said = succeed(Command::new(binary()).arg("check").arg(&file));
    assert!(said.contains("listener web: 127.0.0.1:8080"), "{said}");
}

#[test]
fn systemd_finds_nothing_amiss_with_the_units() {
    let installed = Installed::new();
    let units = installed.path("opt/lib/systemd/system");
    // It looks whether the program is there.
    let service = units.join("evenkeel.service");
    let program = installed.path("opt/bin/evenkeel");
    let text = fs::read_to_string(&service).unwrap();
    let here = text.replace("/opt/bin/evenkeel", &program.display().to_string());
    fs::write(&service, here).unwrap();
    let mut verify = Command::new(tool("systemd-analyze"));
    verify.args(["verify", "--man=no"]).arg(&service);
    let output = verify.arg(units.join("evenkeel.socket")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // It warns of units of this machine, too.
    let of_ours: Vec<_> = said.lines().filter(|it| it.contains("evenkeel")).collect();
    assert!(output.status.success() && of_ours.is_empty(), "{said}");
}

#[test]
fn the_service_is_exposed_to_little() {
    // In tenths; without any of it, 9.6.
    const EXPOSURE_MAX: &str = "--threshold=16";
    let mut security = Command::new(tool("systemd-analyze"));
    security.args(["security", "--no-pager", "--offline=true", EXPOSURE_MAX]);
    succeed(security.arg(format!("{ROOT}/conf/evenkeel.service")));
}
