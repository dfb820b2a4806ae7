//! Names on the command line, and the paths of the API that they become.
//!
//! Knows how a path is written, and nothing of what is asked there.

use std::fmt;
use std::path::{Path, absolute};
use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;

use crate::admin::client::segment;
use crate::units::show_duration;

/// `POOL/SERVER`, neither of them empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerName {
    pub(super) pool: String,
    /// An address where the server has no name of its own.
    pub(super) server: String,
}

/// What to write instead of something that names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write POOL/SERVER, such as web/a or web/10.0.0.11:80")]
pub(super) struct ServerNameError;

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        // At the first: a pool's name has no slash in it, an address may.
        match text.split_once('/') {
            Some((pool, server)) if !pool.is_empty() && !server.is_empty() => Ok(Self {
                pool: pool.to_owned(),
                server: server.to_owned(),
            }),
            _ => Err(ServerNameError),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.server)
    }
}

/// Of one pool.
pub(super) fn of_pool(pool: &str) -> String {
    format!("/api/v1/pools/{}", segment(pool))
}

/// Of the servers of a pool.
pub(super) fn of_servers(pool: &str) -> String {
    format!("{}/servers", of_pool(pool))
}

/// Of one server.
pub(super) fn of_server(name: &ServerName) -> String {
    format!("{}/{}", of_servers(&name.pool), segment(&name.server))
}

/// `path` with those of `pairs` that have a value.
pub(super) fn with_query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut whole = path.to_owned();
    let mut separator = '?';
    for (key, value) in pairs {
        let Some(value) = value else {
            continue;
        };
        whole.push(separator);
        whole.push_str(&format!("{key}={}", segment(value)));
        separator = '&';
    }
    whole
}

/// A duration as the API reads it.
pub(super) fn shown(duration: Option<Duration>) -> Option<String> {
    duration.map(show_duration)
}

/// A file from the root, as text: the process has another working directory than we.
///
/// # Errors
/// No name, or one that JSON cannot have.
pub(super) fn whole(file: &Path) -> anyhow::Result<String> {
    let whole =
        absolute(file).map_err(|error| anyhow!("{}: {error}, name a file", file.display()))?;
    let text = whole.into_os_string().into_string();
    text.map_err(|name| {
        let name = Path::new(&name).display();
        anyhow!("{name}: the name is not UTF-8, give the file another one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<(String, String)> {
        let name: ServerName = text.parse().ok()?;
        Some((name.pool, name.server))
    }

    #[test]
    fn a_name_is_split_at_its_first_slash() {
        let pair = |pool: &str, server: &str| Some((pool.to_owned(), server.to_owned()));
        assert_eq!(named("web/a"), pair("web", "a"));
        assert_eq!(named("web/[::1]:80"), pair("web", "[::1]:80"));
        assert_eq!(named("web/unix:/run/a"), pair("web", "unix:/run/a"));
        for text in ["", "web", "/", "web/", "/a"] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_path_gives_a_meaning_to_is_segment() {
        assert_eq!(segment("db-1.eu_west~"), "db-1.eu_west~");
        assert_eq!(segment("[::1]:80"), "%5B%3A%3A1%5D%3A80");
        assert_eq!(
            segment("a/b?c=d&e%f g\u{e9}"),
            "a%2Fb%3Fc%3Dd%26e%25f%20g%C3%A9"
        );
        let name: ServerName = "web/10.0.0.1:80".parse().unwrap();
        assert_eq!(of_server(&name), "/api/v1/pools/web/servers/10.0.0.1%3A80");
    }

    #[test]
    fn a_query_has_only_what_was_given() {
        let rate = || Some("20/s".to_owned());
        assert_eq!(with_query("/x", &[("rate", None), ("quiet", None)]), "/x");
        let path = with_query("/x", &[("quiet", None), ("rate", rate()), ("pool", rate())]);
        assert_eq!(path, "/x?rate=20%2Fs&pool=20%2Fs");
    }
}
