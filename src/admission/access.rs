//! `allow` and `deny` of a listener, ready to be asked. Knows no limit and no count.

use std::net::IpAddr;

use super::networks::Networks;

/// Who may come in by address: whoever is allowed and not denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `None` is everyone.
    pub allow: Option<Networks>,
    /// Goes before `allow`.
    pub deny: Networks,
}

impl Access {
    /// Whether `address` may come in.
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_allowed = |allow: &Networks| allow.contains(address);
        !self.deny.contains(address) && self.allow.as_ref().is_none_or(is_allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        text.split_whitespace()
            .map(|network| network.parse().unwrap())
            .collect()
    }

    fn admits(access: &Access, address: &str) -> bool {
        access.admits(address.parse().unwrap())
    }

    #[test]
    fn without_rules_everybody_comes_in() {
        let access = Access::default();
        assert!(admits(&access, "192.0.2.1") && admits(&access, "2001:db8::1"));
    }

    #[test]
    fn an_allow_list_keeps_all_others_out_and_an_empty_one_everybody() {
        let mut access = Access {
            allow: Some(networks("10.0.0.0/8 2001:db8::/32")),
            deny: Networks::default(),
        };
        assert!(admits(&access, "10.1.1.1") && admits(&access, "2001:db8::1"));
        assert!(!admits(&access, "11.1.1.1") && !admits(&access, "2001:db9::1"));
        access.allow = Some(Networks::default());
        assert!(!admits(&access, "10.1.1.1"));
    }

    #[test]
    fn deny_wins_whichever_is_narrower() {
        let hole = Access {
            allow: Some(networks("10.0.0.0/8")),
            deny: networks("10.1.0.0/16"),
        };
        assert!(admits(&hole, "10.2.0.1") && !admits(&hole, "10.1.0.1"));
        let lid = Access {
            allow: Some(networks("10.1.0.0/16")),
            deny: networks("10.0.0.0/8"),
        };
        assert!(!admits(&lid, "10.1.0.1"));
    }
}
