//! Commands that change one thing and say in a line what is so now: `ready`, `maintenance`,
//! `weight`, `algorithm`, `add`, `remove`, `kill`, `confirm`.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::arguments::{AddArguments, PaceArguments};
use super::figures::plain;
use super::output::print;
use super::path::{ServerName, of_pool, of_server, of_servers, shown, with_query};
use super::remote::{Remote, understood};
use super::view::{Pool, Server};
use crate::admin::client::ClientError;
use crate::units::counted;

/// Takes connections again, where its health checks say so.
pub(super) fn ready(remote: &Remote, name: &ServerName) -> anyhow::Result<()> {
    let server = patch(remote, name, &json!({"state": "up"}))?;
    let state = plain(&server.state);
    print(&match state.as_str() {
        "down" => format!(
            "{name}: ready, but down: {}\n",
            plain(&server.health.reason)
        ),
        _ => format!("{name}: {state}\n"),
    })
}

/// Takes none, and loses those that it has.
pub(super) fn maintenance(
    remote: &Remote,
    name: &ServerName,
    pace: &PaceArguments,
) -> anyhow::Result<()> {
    let server = patch(
        remote,
        name,
        &with_pace(json!({"state": "maintenance"}), pace),
    )?;
    print(&format!(
        "{name}: {}{}\n",
        plain(&server.state),
        left(&server)
    ))
}

/// How many it still has, as an addition to a sentence.
pub(super) fn left(server: &Server) -> String {
    match server.connections.active {
        0 => String::new(),
        active => format!(", {} left", counted(active, "connection")),
    }
}

/// Counts from the next pick on.
pub(super) fn weight(remote: &Remote, name: &ServerName, weight: u16) -> anyhow::Result<()> {
    let server = patch(remote, name, &json!({"weight": weight}))?;
    print(&format!("{name}: weight {}\n", server.weight))
}

/// Counts from the next pick on, too.
pub(super) fn algorithm(remote: &Remote, pool: &str, name: &str) -> anyhow::Result<()> {
    let body = json!({"algorithm": name});
    let answer = remote.change("PATCH", &of_pool(pool), Some(&body))?;
    let now: Pool = understood(answer)?;
    print(&format!("{pool}: {}\n", plain(&now.algorithm)))
}

/// It takes connections once its first check was good.
pub(super) fn add(remote: &Remote, wish: &AddArguments) -> anyhow::Result<()> {
    let answer = remote.change_slowly(&of_servers(&wish.pool), &added(wish))?;
    let name = answer["name"].as_str().unwrap_or(&wish.address).to_owned();
    let server: Server = understood(answer)?;
    let (pool, address) = (&wish.pool, plain(&server.address));
    let state = match server.state.as_str() {
        "down" => format!(", but down: {}", plain(&server.health.reason)),
        _ => String::new(),
    };
    print(&format!(
        "{pool}/{}: added at {address}{state}\n",
        plain(&name)
    ))
}

/// Only what was said: the defaults are the API's.
fn added(wish: &AddArguments) -> Value {
    let mut body = Map::new();
    body.insert("address".to_owned(), json!(wish.address));
    let said = [
        ("name", wish.name.as_ref().map(|name| json!(name))),
        ("weight", wish.weight.map(|weight| json!(weight))),
        (
            "max_connections",
            wish.max_connections.map(|max| json!(max)),
        ),
        ("backup", wish.backup.then_some(json!(true))),
    ];
    let said = said.into_iter();
    body.extend(said.filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(body)
}

/// Its connections drain; the pace is part of the path, since a DELETE has no body.
pub(super) fn remove(
    remote: &Remote,
    name: &ServerName,
    pace: &PaceArguments,
) -> anyhow::Result<()> {
    let query = [
        ("rate", pace.rate.map(|rate| rate.to_string())),
        ("quiet", shown(pace.quiet)),
        ("deadline", shown(pace.deadline)),
    ];
    let server: Server = understood(remote.fetch(&of_server(name))?)?;
    remote.change("DELETE", &with_query(&of_server(name), &query), None)?;
    let left = match server.connections.active {
        0 => ", it has no connection".to_owned(),
        active => format!(
            ", {} left: `evenkeel status` shows it until the last is gone",
            counted(active, "connection")
        ),
    };
    print(&format!("{name}: removed{left}\n"))
}

/// Closes all that are there, and then complains about the others.
pub(super) fn kill(remote: &Remote, ids: &[u64]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for id in ids {
        let answer = remote.change("DELETE", &format!("/api/v1/connections/{id}"), None);
        match answer {
            Ok(_) => {}
            Err(error) if is_missing(&error) => missing.push(id.to_string()),
            Err(error) => return Err(error),
        }
    }
    let closed = ids.len() - missing.len();
    if closed > 0 {
        print(&format!(
            "{} closed\n",
            counted(closed as u64, "connection")
        ))?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "not there: {}; `evenkeel connections` lists the ids that there are",
        missing.join(", ")
    )
}

/// True where what was asked for is not there.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<ClientError>();
    matches!(refused, Some(ClientError::Refused { status: 404, .. }))
}

/// Ends the wait that `reload --confirm` began.
pub(super) fn confirm(remote: &Remote) -> anyhow::Result<()> {
    remote.change("POST", "/api/v1/confirm", None)?;
    print("confirmed: the reload stays\n")
}

/// Changes a server, and answers how it is now.
pub(super) fn patch(remote: &Remote, name: &ServerName, body: &Value) -> anyhow::Result<Server> {
    understood(remote.change("PATCH", &of_server(name), Some(body))?)
}

/// `body` with the pace that was asked for, if any.
pub(super) fn with_pace(mut body: Value, pace: &PaceArguments) -> Value {
    let said = [
        ("rate", pace.rate.map(|rate| rate.to_string())),
        ("quiet", shown(pace.quiet)),
        ("deadline", shown(pace.deadline)),
    ];
    let said = said.into_iter();
    let said: Map<_, _> = said
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
        .collect();
    if !said.is_empty() {
        body["drain"] = Value::Object(said);
    }
    body
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pace_has_only_what_was_said() {
        let nothing = PaceArguments::default();
        assert_eq!(with_pace(json!({}), &nothing), json!({}));
        let pace = PaceArguments {
            rate: Some("20/s".parse().unwrap()),
            quiet: None,
            deadline: Some(Duration::from_secs(600)),
        };
        let body = with_pace(json!({"state": "draining"}), &pace);
        let drain = json!({"rate": "20/s", "deadline": "10m"});
        assert_eq!(body, json!({"state": "draining", "drain": drain}));
    }

    #[test]
    fn a_new_server_has_only_what_was_said() {
        let mut wish = AddArguments {
            pool: "web".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            name: None,
            weight: None,
            max_connections: None,
            backup: false,
        };
        assert_eq!(added(&wish), json!({"address": "127.0.0.1:1"}));
        wish.weight = Some(0);
        wish.backup = true;
        let body = json!({"address": "127.0.0.1:1", "weight": 0, "backup": true});
        assert_eq!(added(&wish), body);
    }

    #[test]
    fn only_a_404_means_that_nothing_is_there() {
        let refused = |status| {
            let text = "no".to_owned();
            is_missing(&anyhow::Error::new(ClientError::Refused { status, text }))
        };
        assert!(refused(404));
        assert!(!refused(409));
        assert!(!is_missing(&anyhow::anyhow!("404")));
    }
}
