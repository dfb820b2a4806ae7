//! What people write who come from HAProxy, nginx or Envoy, and what it is called here. All of it is
//! a mistake in a file of ours, but one that we can name the right words for.
//!
//! Knows words and no place: whoever refuses a text asks here for better advice.

use super::mistake::{Wrong, plain, quoted};

/// How others call an algorithm or a type of check, without underscores and dashes.
const WORDS: [(&str, &str); 17] = [
    ("leastconn", "least_connections"),
    ("leastrequest", "least_connections"),
    ("lc", "least_connections"),
    ("wlc", "least_connections"),
    ("rr", "round_robin"),
    ("wrr", "round_robin"),
    ("roundrobin", "round_robin"),
    ("staticrr", "round_robin"),
    ("source", "ip_hash"),
    ("maglev", "ip_hash"),
    ("ringhash", "ip_hash"),
    ("p2c", "power_of_two"),
    ("peakewma", "least_time"),
    ("pgsql", "postgres"),
    ("postgresql", "postgres"),
    ("mariadb", "mysql"),
    ("external", "exec"),
];

/// How others call what a server may have.
const OPTIONS: [(&str, &str); 6] = [
    ("weight", "weight"),
    ("max_connections", "max_connections"),
    ("max_conns", "max_connections"),
    ("maxconn", "max_connections"),
    ("name", "name"),
    ("backup", "backup"),
];

/// Our name for a word of others, where it is one of `names`.
pub(super) fn word<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    let plain = text.to_lowercase().replace(['_', '-'], "");
    let (_, ours) = WORDS.iter().find(|(theirs, _)| *theirs == plain)?;
    names.iter().find(|name| *name == ours).copied()
}

/// An address with words behind it, such as `10.0.0.1:80 weight=3`, as nginx and a file of servers
/// have it.
pub(super) fn server_line(text: &str) -> Option<Wrong> {
    let mut words = text.split_whitespace();
    let address = words.next()?;
    let options: Vec<_> = words.map(option).collect();
    if options.is_empty() || options.iter().all(Option::is_none) {
        return None;
    }
    let keys: String = options
        .into_iter()
        .flatten()
        .map(|(key, value)| format!(", {key}: {value}"))
        .collect();
    let what = format!("{} has more than an address", quoted(text));
    let quotes = if address.starts_with('[') { "\"" } else { "" };
    let address = plain(address);
    let remedy = format!("write {{address: {quotes}{address}{quotes}{keys}}}");
    Some(Wrong::new(what, remedy))
}

/// `weight=3` or `backup`.
fn option(word: &str) -> Option<(&'static str, String)> {
    let (key, value) = word.split_once('=').unwrap_or((word, "true"));
    let (_, ours) = OPTIONS.iter().find(|(theirs, _)| *theirs == key)?;
    (*ours == "backup" || word != key).then(|| (*ours, plain(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_have_one_of_ours() {
        let names = ["round_robin", "least_connections", "ip_hash"];
        for (theirs, ours) in [
            ("leastconn", "least_connections"),
            ("LEAST_CONN", "least_connections"),
            ("static-rr", "round_robin"),
            ("source", "ip_hash"),
        ] {
            assert_eq!(word(theirs, &names), Some(ours));
        }
        assert_eq!(word("pgsql", &names), None);
        assert_eq!(word("fastest", &names), None);
    }

    #[test]
    fn what_stands_behind_an_address_becomes_keys() {
        let told = |text| server_line(text).map(|wrong| wrong.text());
        for (text, remedy) in [
            ("10.0.0.1:80 weight=3", "{address: 10.0.0.1:80, weight: 3}"),
            (
                "db.x:80 max_conns=7 backup",
                "{address: db.x:80, max_connections: 7, backup: true}",
            ),
            ("[::1]:80 weight=3", "{address: \"[::1]:80\", weight: 3}"),
            ("unix:/x check weight=3", "{address: unix:/x, weight: 3}"),
        ] {
            let told = told(text).unwrap();
            assert!(told.ends_with(&format!(", write {remedy}")), "{told}");
        }
        for text in ["", "10.0.0.1:80", "10.0.0.1:80 ", "a b", "a weight"] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
