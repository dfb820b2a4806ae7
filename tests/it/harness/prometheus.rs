//! A real Prometheus with the files of `conf/monitoring`, made quick: what an operator would copy,
//! changed by [`quickened`] in nothing but its pace and whom it scrapes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::api::Api;
use super::daemons::Daemon;
use super::eventually;
use super::peers::Refusing;
use super::tools::tool;

/// Where those files are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/monitoring")
}

/// One of those files.
#[track_caller]
pub(crate) fn file(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// One running Prometheus, which scrapes and judges each second.
#[derive(Debug)]
pub(crate) struct Prometheus {
    daemon: Daemon,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it, watching evenkeels at `nodes` and node_exporters at `hosts`.
    #[track_caller]
    pub(crate) fn watching(nodes: &[SocketAddr], hosts: &[SocketAddr]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut config = file("prometheus.yml");
        for (port, targets) in [(9900, nodes), (9100, hosts)] {
            let written = format!("[\"10.0.0.2:{port}\", \"10.0.0.3:{port}\"]");
            assert!(config.contains(&written), "{config}");
            let targets: Vec<_> = targets.iter().map(SocketAddr::to_string).collect();
            config = config.replace(&written, &format!("{targets:?}"));
        }
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, quickened(&config)).unwrap();
        let rules = quickened(&file("evenkeel.rules.yml"));
        fs::write(folder.path().join("evenkeel.rules.yml"), rules).unwrap();
        let port = Refusing::new();
        let mut command = Command::new(tool("prometheus"));
        command.arg(format!("--config.file={}", path.display()));
        let data = folder.path().join("data");
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={}", port.address()));
        command.arg("--log.level=warn");
        // Nothing that it keeps is wanted, so it need not end in order.
        let daemon = Daemon::start(&mut command, port, "KILL");
        let started = Self {
            daemon,
            _folder: folder,
        };
        let api = Api::Tcp(started.daemon.address());
        eventually("it is ready", || api.ask("GET", "/-/ready").status == 200);
        for (job, count) in [("evenkeel", nodes.len()), ("node", hosts.len())] {
            let up = format!("up{{job=\"{job}\"}} == 1");
            eventually("it scrapes", || started.query(&up).len() == count);
        }
        started
    }

    /// What `path` of its API answers to a query parameter.
    #[track_caller]
    fn ask(&self, path: &str, parameter: &str, text: &str) -> Value {
        let text: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/{path}?{parameter}={text}");
        let answer = Api::Tcp(self.daemon.address()).get(&path);
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].clone()
    }

    /// The samples that an expression gives now; one that cannot be parsed fails the test.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        list(&self.ask("query", "query", expression)["result"])
    }

    /// The series that a selector finds.
    #[track_caller]
    pub(crate) fn series(&self, selector: &str) -> Vec<Value> {
        list(&self.ask("series", "match[]", selector))
    }

    /// All rules, as it has read them.
    #[track_caller]
    pub(crate) fn rules(&self) -> Vec<Value> {
        let groups = list(&self.ask("rules", "type", "")["groups"]);
        groups
            .iter()
            .flat_map(|group| list(&group["rules"]))
            .collect()
    }

    /// The labels of the alerts that fire, sorted, each as `NAME LABEL=VALUE...` with those of `labels`.
    #[track_caller]
    pub(crate) fn firing(&self, labels: &[&str]) -> Vec<String> {
        let alerts = list(&self.ask("alerts", "none", "")["alerts"]);
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let mut shown: Vec<String> = firing
            .map(|alert| {
                let label =
                    |name: &&str| Some(format!(" {name}={}", alert["labels"].get(name)?.as_str()?));
                let labels: String = labels.iter().filter_map(label).collect();
                format!("{}{labels}", alert["labels"]["alertname"].as_str().unwrap())
            })
            .collect();
        shown.sort();
        shown
    }
}

#[track_caller]
fn list(value: &Value) -> Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is no list"))
        .clone()
}

/// The same file with a second for each interval and for each `for`; ranges stay as they are.
fn quickened(file: &str) -> String {
    let paces = ["for:", "scrape_interval:", "evaluation_interval:"];
    let lines = file.lines().map(|line| {
        let content = line.trim_start();
        match paces.iter().find(|pace| content.starts_with(**pace)) {
            Some(pace) => format!("{}{pace} 1s\n", &line[..line.len() - content.len()]),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}
