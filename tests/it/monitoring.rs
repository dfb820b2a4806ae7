//! `conf/monitoring`: Prometheus' own tools take the files, what the rules and the dashboard ask for is
//! there in a real scrape, and a real Prometheus tells of servers that die and of their return.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::harness::api::Api;
use crate::harness::peers::Refusing;
use crate::harness::program::Evenkeel;
use crate::harness::prometheus::{Prometheus, file, folder};
use crate::harness::servers::{Greeter, greeted};
use crate::harness::tools::{succeed, tool};
use crate::harness::{eventually, with_health};

const TOP: &str = "workers: 1\nadmin: {socket: SOCKET, http: 127.0.0.1:0}";
const HEALTH: &str = "    health: {type: tcp, interval: 100ms, fall: 2, rise: 2}";
const MANUAL: &str = include_str!("../../docs/metrics.md");

#[test]
fn promtool_takes_the_files_and_each_alert_fires_as_it_should() {
    for (task, name) in [
        (["check", "config"], "prometheus.yml"),
        (["check", "rules"], "evenkeel.rules.yml"),
        (["test", "rules"], "evenkeel_rules_test.yml"),
    ] {
        let mut promtool = Command::new(tool("promtool"));
        succeed(promtool.current_dir(folder()).args(task).arg(name));
    }
}

fn http_address(evenkeel: &Evenkeel) -> SocketAddr {
    match evenkeel.http() {
        Api::Tcp(address) => address,
        Api::Unix(path) => panic!("{} is no address", path.display()),
    }
}

/// The expressions of the dashboard, with something for each variable.
fn of_dashboard() -> Vec<String> {
    fn gather(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(
                    members
                        .get("expr")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                members.values().for_each(|member| gather(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&file("grafana.json")).unwrap();
    let mut found = Vec::new();
    gather(&dashboard, &mut found);
    // What a variable lists are the values of a label.
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(definition) = variable["definition"].as_str() {
            let inner = definition.strip_prefix("label_values(").unwrap();
            let (selector, label) = inner.rsplit_once(", ").unwrap();
            let label = label.strip_suffix(')').unwrap();
            found.push(format!("count by ({label}) ({selector}) > 0"));
        }
    }
    assert!(found.len() > 50, "{found:?}");
    let replaced = |text: String| {
        let names = ["$fleet", "$node", "$pool", "$server"].iter();
        let text = names.fold(text, |text, name| text.replace(name, ".*"));
        text.replace("$__rate_interval", "1m")
    };
    let all: Vec<_> = found.into_iter().map(replaced).collect();
    assert!(all.iter().all(|text| !text.contains('$')), "{all:?}");
    all
}

/// The metrics of ours in an expression, each with the labels that it asks for; recorded ones are not.
fn selectors(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let mut found = BTreeSet::new();
    for (start, _) in expression.match_indices("evenkeel_") {
        let rest = &expression[start..];
        let is_whole = !expression[..start].ends_with(is_name);
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        if is_whole && !name.contains(':') {
            let labels = rest[name.len()..].strip_prefix('{');
            let labels = labels.and_then(|labels| labels.split_once('}'));
            let labels = labels.map_or(String::new(), |(labels, _)| format!("{{{labels}}}"));
            found.insert(format!("{name}{labels}"));
        }
    }
    found
}

#[test]
fn rules_and_dashboard_ask_for_what_a_scrape_has() {
    let greeter = Greeter::listen(b'a');
    let evenkeel = Evenkeel::start(&with_health(TOP, HEALTH, &[greeter.address()]));
    // Some series are there only while a drain is under way.
    let _client = greeted(evenkeel.address());
    let path = format!("/api/v1/pools/web/servers/{}", greeter.address());
    let drain = evenkeel
        .api()
        .send("PATCH", &path, r#"{"state":"draining"}"#);
    drain.expect(200);
    let prometheus = Prometheus::watching(&[http_address(&evenkeel)], &[hosts_at_one()]);
    let rules = prometheus.rules();
    let of_rules = rules
        .iter()
        .map(|rule| rule["query"].as_str().unwrap().to_owned());
    let mut asked = BTreeSet::new();
    for expression in of_rules.chain(of_dashboard()) {
        // One that cannot be parsed fails here.
        prometheus.query(&expression);
        asked.extend(selectors(&expression));
    }
    assert!(asked.len() > 50, "{asked:?}");
    let missing: Vec<_> = asked
        .iter()
        .filter(|selector| prometheus.series(selector).is_empty())
        .collect();
    assert!(missing.is_empty(), "no series for {missing:#?}");
}

#[test]
fn each_alert_is_tested_explained_and_says_what_to_do() {
    let (rules, tests) = (file("evenkeel.rules.yml"), file("evenkeel_rules_test.yml"));
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 20);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let fires = format!("alertname=\"{name}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "no test has {name} fire");
        assert!(
            MANUAL.contains(&format!("| {name} |")),
            "{name} is not in the manual"
        );
    }
}

#[test]
fn the_dashboard_can_be_imported_and_its_panels_are_in_order() {
    let dashboard: Value = serde_json::from_str(&file("grafana.json")).unwrap();
    assert!(
        dashboard["id"].is_null(),
        "else it would replace another one"
    );
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36), "Grafana 9");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is another's"
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is too wide");
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        for cell in cells {
            assert!(places.insert(cell), "{title} is on top of another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|text| text.ends_with('.')),
            "{title}"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let rows = places.iter().map(|(_, y)| y).max().unwrap() + 1;
    assert_eq!(places.len() as u64, 24 * rows, "there are no holes");
}

/// A node_exporter, as far as it matters here, of a host that holds the address of VRRP instance VI_1.
/// It serves as long as the test program runs.
fn hosts_at_one() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let body = "evenkeel_vrrp_master{instance=\"VI_1\"} 1\n";
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            // Whoever only looks whether somebody listens sends nothing and reads nothing.
            if stream.read(&mut request).is_ok_and(|read| read > 0) {
                stream
                    .write_all(format!("{head}{body}").as_bytes())
                    .unwrap_or(());
            }
        }
    });
    address
}

#[test]
fn a_real_prometheus_tells_of_servers_that_die_and_of_their_return() {
    let ports = [Refusing::new(), Refusing::new()];
    let [mut a, mut b] = [b'a', b'b'].map(|name| {
        let port = &ports[usize::from(name - b'a')];
        Greeter::serve(name, port.listen())
    });
    let addresses = [a.address(), b.address()];
    let evenkeel = Evenkeel::start(&with_health(TOP, HEALTH, &addresses));
    let nodes = [http_address(&evenkeel)];
    // Two hosts believe that they have the address, all the time.
    let prometheus = Prometheus::watching(&nodes, &[hosts_at_one(), hosts_at_one()]);
    let labels = ["exported_instance", "pool", "server"];
    let fires = |expected: &[String]| {
        let masters = "EvenkeelTwoMasters exported_instance=VI_1".to_owned();
        let mut expected = [expected, &[masters]].concat();
        expected.sort();
        let mut firing = Vec::new();
        let what = format!("these fire and no other: {expected:?}");
        eventually(&what, || {
            firing = prometheus.firing(&labels);
            firing == expected
        });
    };
    let down = |address: SocketAddr| format!("EvenkeelServerDown pool=web server={address}");
    fires(&[]);
    a.stop();
    fires(&[down(addresses[0])]);
    b.stop();
    fires(&[
        down(addresses[0]),
        down(addresses[1]),
        "EvenkeelFleetNotReady".into(),
        "EvenkeelNodeNotReady".into(),
        "EvenkeelPoolWithoutServer pool=web".into(),
    ]);
    // Back at the same ports.
    let _revived = [0, 1].map(|number: usize| Greeter::serve(b'r', ports[number].listen()));
    fires(&[]);
}
