//! The thread with real files. Names are asked for in tests/it/discovery.rs, where the system's
//! settings can be the test's own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

struct Rig {
    resolver: Resolver,
    reports: Receiver<Report>,
    resolutions: Arc<Resolutions>,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let (sender, reports) = unbounded();
        let resolutions = Arc::new(Resolutions::default());
        let deliver = move |report| sender.send(report).unwrap_or(());
        Self {
            resolver: spawn(deliver, Arc::clone(&resolutions)).unwrap(),
            reports,
            resolutions,
            folder: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn watch(&self, name: &str) -> Arc<Question> {
        let question = Arc::new(Question::File(self.path(name)));
        self.resolver.change(vec![Step::Watch {
            question: Arc::clone(&question),
            every: Duration::from_secs(3600),
        }]);
        question
    }

    #[track_caller]
    fn next(&self) -> Result<Vec<String>, String> {
        let report = self.reports.recv_timeout(DEADLINE).unwrap();
        let shown = |found: &Found| found.address.to_string();
        match report.answer {
            Ok(found) => Ok(found.iter().map(shown).collect()),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

fn good(addresses: &[&str]) -> Result<Vec<String>, String> {
    Ok(addresses
        .iter()
        .map(|address| (*address).to_owned())
        .collect())
}

#[test]
fn a_file_is_read_again_however_it_changes() {
    let rig = Rig::new();
    let path = rig.path("servers");
    fs::write(&path, "10.0.0.1:80\n").unwrap();
    rig.watch("servers");
    assert_eq!(rig.next(), good(&["10.0.0.1:80"]));
    // The same size, and perhaps within the same tick of the file system's clock.
    fs::write(&path, "10.0.0.2:80\n").unwrap();
    assert_eq!(rig.next(), good(&["10.0.0.2:80"]));
    fs::write(rig.path("new"), "10.0.0.3:80\n").unwrap();
    fs::rename(rig.path("new"), &path).unwrap();
    assert_eq!(rig.next(), good(&["10.0.0.3:80"]));
    fs::write(&path, "10.0.0.3:80\nnonsense\n").unwrap();
    assert_eq!(
        rig.next(),
        Err("there are mistakes in it, the log has them".to_owned())
    );
    fs::remove_file(&path).unwrap();
    let told = rig.next().unwrap_err();
    assert!(told.starts_with("cannot read it: No such file"), "{told}");
    fs::write(&path, "# nobody\n").unwrap();
    assert_eq!(rig.next(), Err("there is no server in it".to_owned()));
    // As a config map: a link that leads elsewhere.
    fs::write(rig.path("other"), "10.0.0.4:80\n").unwrap();
    std::os::unix::fs::symlink("other", rig.path("link")).unwrap();
    fs::rename(rig.path("link"), &path).unwrap();
    assert_eq!(rig.next(), good(&["10.0.0.4:80"]));
    rig.resolver.stop();
}

#[test]
fn mistakes_are_told_with_their_lines() {
    let rig = Rig::new();
    fs::write(rig.path("servers"), "nonsense\n").unwrap();
    rig.watch("servers");
    let report = rig.reports.recv_timeout(DEADLINE).unwrap();
    let mistakes = report.answer.unwrap_err().mistakes.unwrap();
    assert!(
        mistakes.contains("servers:1:1: `nonsense` has no port"),
        "{mistakes}"
    );
}

#[test]
fn what_stays_the_same_is_counted_and_not_reported() {
    let rig = Rig::new();
    rig.watch("missing");
    assert!(rig.next().is_err());
    // It fails each second.
    while rig.resolutions.by_result()[1].1 < 3 {
        std::thread::yield_now();
    }
    assert!(rig.reports.is_empty());
}

#[test]
fn what_is_forgotten_is_asked_no_more_and_can_be_asked_again() {
    let rig = Rig::new();
    fs::write(rig.path("servers"), "10.0.0.1:80\n").unwrap();
    let question = rig.watch("servers");
    assert_eq!(rig.next(), good(&["10.0.0.1:80"]));
    rig.resolver.change(vec![Step::Forget(question)]);
    rig.watch("servers");
    assert_eq!(rig.next(), good(&["10.0.0.1:80"]));
}

#[test]
fn what_cannot_be_read_as_a_file_is_no_reason_to_wait() {
    let rig = Rig::new();
    rig.watch(".");
    assert_eq!(
        rig.next(),
        Err("cannot read it: it is no ordinary file".to_owned())
    );
}
