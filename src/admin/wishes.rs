//! What requests may ask for, as it is written, and its translation into what the process
//! understands. An unknown field is an error: a misspelt limit must not mean no limit.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::fault::Fault;
use super::request::{NewServer, Reload, ServerChange};
use crate::balance::Algorithm;
use crate::config::{self, DURATION_MAX, NAME_BYTES_MAX, WEIGHT_MAX};
use crate::pool::drain::Pace;
use crate::roster::Standing;
use crate::units::parse_duration;

/// How connections are to end.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PaceWish {
    rate: Option<String>,
    quiet: Option<String>,
    deadline: Option<String>,
}

impl PaceWish {
    /// `otherwise` holds where neither a rate nor a deadline is given.
    pub(super) fn pace(&self, otherwise: Pace) -> Result<Pace, Fault> {
        let rate = self.rate.as_deref().map(|text| {
            text.parse()
                .map_err(|error| Fault::invalid(format!("rate: {text:?} is no rate: {error}")))
        });
        let rate = rate.transpose()?;
        let deadline = optional("deadline", self.deadline.as_deref())?;
        let quiet = optional("quiet", self.quiet.as_deref())?;
        // A rate alone could take for ever where connections never fall quiet.
        let usual = match (rate, deadline) {
            (None, None) => otherwise.deadline,
            (Some(_), None) => Some(Pace::DEADLINE),
            _ => None,
        };
        Ok(Pace {
            rate,
            quiet: quiet.unwrap_or(otherwise.quiet),
            deadline: deadline.or(usual),
        })
    }
}

fn optional(field: &str, text: Option<&str>) -> Result<Option<Duration>, Fault> {
    text.map(|text| duration(field, text)).transpose()
}

/// A duration within what clocks can count.
pub(super) fn duration(field: &str, text: &str) -> Result<Duration, Fault> {
    let wrong = |why: String| Fault::invalid(format!("{field}: {text:?} {why}"));
    let duration =
        parse_duration(text).map_err(|error| wrong(format!("is no duration: {error}")))?;
    match duration <= DURATION_MAX {
        true => Ok(duration),
        false => Err(wrong("is too long: write at most 365d".into())),
    }
}

/// The body of `PATCH` on a server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerWish {
    state: Option<String>,
    weight: Option<u32>,
    drain: Option<PaceWish>,
}

impl ServerWish {
    /// What it comes to.
    pub(super) fn change(&self) -> Result<ServerChange, Fault> {
        let standing = self.standing()?;
        if standing.is_none() && self.drain.is_some() {
            return Err(Fault::invalid(
                "drain goes with a state: draining or maintenance",
            ));
        }
        let weight = self.weight.map(weight).transpose()?;
        if standing.is_none() && weight.is_none() {
            return Err(Fault::invalid("nothing to change: give state or weight"));
        }
        Ok(ServerChange { standing, weight })
    }

    fn standing(&self) -> Result<Option<(Standing, Pace)>, Fault> {
        let Some(state) = self.state.as_deref() else {
            return Ok(None);
        };
        let (standing, otherwise) = match state {
            "up" | "ready" => (Standing::Ready, Pace::PATIENT),
            "draining" => (Standing::Draining, Pace::PATIENT),
            "maintenance" => (Standing::Maintenance, Pace::AT_ONCE),
            _ => {
                let text = format!("state: {state:?}: write up, draining or maintenance");
                return Err(Fault::invalid(text));
            }
        };
        let pace = match &self.drain {
            None => otherwise,
            Some(_) if standing == Standing::Ready => {
                return Err(Fault::invalid(
                    "drain goes with draining or maintenance, not with up",
                ));
            }
            Some(wish) => wish.pace(otherwise)?,
        };
        Ok(Some((standing, pace)))
    }
}

fn weight(weight: u32) -> Result<u32, Fault> {
    match weight <= WEIGHT_MAX {
        true => Ok(weight),
        false => Err(Fault::invalid(format!(
            "weight: {weight} is out of range: write 0 to {WEIGHT_MAX}"
        ))),
    }
}

/// The body of `POST` on a pool's servers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewServerWish {
    name: Option<String>,
    address: String,
    #[serde(default = "one")]
    weight: u32,
    max_connections: Option<NonZeroU32>,
    #[serde(default)]
    backup: bool,
}

fn one() -> u32 {
    1
}

impl NewServerWish {
    /// What it comes to.
    pub(super) fn server(self) -> Result<NewServer, Fault> {
        let address = config::server_address(&self.address);
        Ok(NewServer {
            name: self.name.map(name).transpose()?,
            address: address.map_err(|wrong| Fault::invalid(format!("address: {wrong}")))?,
            weight: weight(self.weight)?,
            max_connections: self.max_connections,
            backup: self.backup,
        })
    }
}

/// The rule of the config: names go into logs, metrics and addresses.
fn name(name: String) -> Result<String, Fault> {
    match config::is_name(&name) {
        true => Ok(name),
        false => Err(Fault::invalid(format!(
            "name: {name:?}: write letters, digits, dots, dashes and underscores, at most \
             {NAME_BYTES_MAX}"
        ))),
    }
}

/// The body of `PATCH` on a pool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolWish {
    algorithm: String,
}

impl PoolWish {
    /// What it comes to.
    pub(super) fn algorithm(&self) -> Result<Algorithm, Fault> {
        let algorithm = self.algorithm.parse();
        algorithm.map_err(|error| Fault::invalid(format!("algorithm: {error}")))
    }
}

/// The body of a reload.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadWish {
    pub(super) file: Option<PathBuf>,
    confirm: Option<String>,
    #[serde(default)]
    drain: PaceWish,
}

impl ReloadWish {
    /// What it comes to.
    pub(super) fn reload(self) -> Result<Reload, Fault> {
        let confirm = optional("confirm", self.confirm.as_deref())?;
        if confirm.is_some_and(|confirm| confirm.is_zero()) {
            return Err(Fault::invalid(
                "confirm: write a time that somebody can keep, such as 60s",
            ));
        }
        Ok(Reload {
            file: self.file,
            confirm,
            pace: self.drain.pace(Pace::PATIENT)?,
        })
    }
}

/// The body of a plan.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanWish {
    pub(super) file: Option<PathBuf>,
}

/// The body of an upgrade.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpgradeWish {
    pub(super) binary: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn change(body: Value) -> Result<ServerChange, String> {
        let wish: ServerWish = serde_json::from_value(body).map_err(|error| error.to_string())?;
        wish.change().map_err(|fault| fault.text)
    }

    fn pace(body: Value) -> Pace {
        change(body).unwrap().standing.unwrap().1
    }

    #[test]
    fn a_pace_is_as_patient_as_it_says() {
        let seconds = |count| Some(Duration::from_secs(count));
        let wish = |state, drain| json!({"state": state, "drain": drain});
        assert_eq!(pace(json!({"state": "draining"})), Pace::PATIENT);
        assert_eq!(pace(json!({"state": "maintenance"})), Pace::AT_ONCE);
        assert_eq!(pace(wish("maintenance", json!({}))), Pace::AT_ONCE);
        let rated = pace(wish("draining", json!({"rate": "20/s"})));
        assert_eq!((rated.deadline, rated.quiet), (seconds(600), Pace::QUIET));
        assert_eq!(rated.rate.unwrap().to_string(), "20/s");
        let cut = pace(wish("draining", json!({"deadline": "10s", "quiet": "1s"})));
        assert_eq!((cut.rate, cut.deadline), (None, seconds(10)));
        assert_eq!(cut.quiet, Duration::from_secs(1));
        let slow = pace(wish("maintenance", json!({"rate": "5/s"})));
        assert_eq!(slow.deadline, seconds(600));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (body, part) in [
            (json!({}), "nothing to change"),
            (json!({"state": "sleepy"}), "up, draining or maintenance"),
            (json!({"weight": 257}), "0 to 256"),
            (json!({"weight": -1}), "invalid value: integer `-1`"),
            (json!({"weight": 1.5}), "floating point"),
            (json!({"wieght": 1}), "unknown field `wieght`"),
            (json!({"weight": 1, "drain": {}}), "drain goes with a state"),
            (json!({"state": "up", "drain": {}}), "not with up"),
            (
                json!({"state": "draining", "drain": {"rate": "fast"}}),
                "write one such as 20/s",
            ),
            (
                json!({"state": "draining", "drain": {"quiet": "5"}}),
                "give the number a unit",
            ),
            (
                json!({"state": "draining", "drain": {"deadline": "400d"}}),
                "at most 365d",
            ),
            (
                json!({"state": "draining", "drain": {"pace": "1/s"}}),
                "unknown field `pace`",
            ),
        ] {
            let error = change(body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    fn server(body: Value) -> Result<NewServer, String> {
        let wish: NewServerWish =
            serde_json::from_value(body).map_err(|error| error.to_string())?;
        wish.server().map_err(|fault| fault.text)
    }

    #[test]
    fn a_new_server_needs_only_an_address() {
        let plain = server(json!({"address": "[::1]:80"})).unwrap();
        assert_eq!((plain.weight, plain.backup, &plain.name), (1, false, &None));
        for (body, part) in [
            (json!({}), "missing field `address`"),
            (json!({"address": "db:80"}), "write an IP address"),
            (json!({"address": "127.0.0.1:0"}), "has port 0"),
            (
                json!({"address": "127.0.0.1:1", "name": "a b"}),
                "letters, digits",
            ),
            (
                json!({"address": "127.0.0.1:1", "name": ""}),
                "letters, digits",
            ),
            (
                json!({"address": "127.0.0.1:1", "max_connections": 0}),
                "nonzero",
            ),
        ] {
            let error = server(body).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_reload_that_nobody_could_confirm_is_refused() {
        let wish: ReloadWish = serde_json::from_value(json!({"confirm": "0s"})).unwrap();
        assert!(wish.reload().is_err());
        let wish: ReloadWish = serde_json::from_value(json!({})).unwrap();
        assert_eq!(wish.reload().unwrap().pace, Pace::PATIENT);
    }
}
