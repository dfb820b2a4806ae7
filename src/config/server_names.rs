//! Names that TLS clients ask for (RFC 6066), as people write them: `db.example.com`, and
//! `*.example.com` for all below it.
//!
//! Knows neither where they lead nor how a ClientHello looks.

use std::net::IpAddr;
use std::sync::Arc;

use super::ServerPattern;
use super::mistake::{Wrong, quoted};

/// What DNS allows, in bytes; a label is what stands between two dots.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

const REMEDY: &str = "write one such as db.example.com or *.example.com";

/// Which names a key of `sni` means: case makes no difference, nor does a dot at the end.
pub(super) fn pattern(text: &str) -> Result<ServerPattern, Wrong> {
    let wrong = |lack: String, remedy: &str| {
        let what = format!("{} {lack}", quoted(text));
        Err(Wrong::new(what, remedy))
    };
    let whole = text.strip_suffix('.').unwrap_or(text);
    if matches!(whole, "*" | "*.") {
        let remedy = "remove it: what no name matches goes to the listener's own pool";
        return wrong("is every name".to_owned(), remedy);
    }
    let below = whole.strip_prefix("*.");
    let name = below.unwrap_or(whole);
    if name.parse::<IpAddr>().is_ok() {
        let remedy = "write a name: TLS clients never ask for an address";
        return wrong("is an address".to_owned(), remedy);
    }
    if let Some((lack, remedy)) = lack(name) {
        return wrong(lack, remedy);
    }
    let name = Arc::from(name.to_ascii_lowercase());
    Ok(match below {
        Some(_) => ServerPattern::Below(name),
        None => ServerPattern::Exact(name),
    })
}

/// What is wrong with a name, and what to write.
fn lack(name: &str) -> Option<(String, &'static str)> {
    if name.contains('*') {
        let lack = "has a * that is not the whole first label".to_owned();
        return Some((lack, "write one such as *.example.com"));
    }
    if name.contains(':') {
        let remedy = "write the name alone, such as db.example.com";
        return Some(("has a colon in it".to_owned(), remedy));
    }
    if name.len() > NAME_BYTES_MAX {
        let lack = format!("has {} bytes", name.len());
        return Some((lack, "write at most 253"));
    }
    let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if let Some(bad) = name.chars().find(|c| !is_good(*c)) {
        let lack = format!("has {} in it", quoted(&bad.to_string()));
        let remedy = if bad.is_ascii() {
            "write letters, digits, dots, dashes and underscores"
        } else {
            "write its ASCII form, which begins with xn--"
        };
        return Some((lack, remedy));
    }
    let mut labels = name.split('.');
    if labels.clone().any(str::is_empty) {
        return Some(("has nothing between its dots".to_owned(), REMEDY));
    }
    labels
        .find(|label| label.len() > LABEL_BYTES_MAX)
        .map(|label| {
            let lack = format!("has {} bytes between two dots", label.len());
            (lack, "write at most 63")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_lower_case_and_without_the_last_dot() {
        for (text, shown) in [
            ("db.example.com", "db.example.com"),
            ("DB.Example.com.", "db.example.com"),
            ("*.Example.com", "*.example.com"),
            ("*.com", "*.com"),
            ("_x.a-b", "_x.a-b"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(pattern(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_no_client_asks_for_is_refused() {
        let long_label = format!("{}.com", "x".repeat(64));
        let long = "x.".repeat(127) + "x";
        for text in [
            "",
            ".",
            "*",
            "*.",
            "*.*.com",
            "a.*.com",
            "*a.com",
            "a..b",
            ".a",
            "10.0.0.1",
            "::1",
            "a:443",
            "a b",
            "a/b",
            "m\u{fc}nchen.de",
            &long_label,
            &long,
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
