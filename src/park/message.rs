//! What is said to a store: lines of text, one message a packet, descriptors beside it. The first two are
//! those of sd_pid_notify_with_fds(3), so that systemd and a keeper are told the same.

use std::fmt;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// Keep the descriptors that come along, under this name.
    Keep(&'a str),
    /// Drop all that are kept under this name.
    Forget(&'a str),
    /// Of a keeper: give some of those that are kept, from this number on.
    Give(u64),
    /// Of a keeper: drop all, and end.
    End,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(name) => write!(f, "FDSTORE=1\nFDNAME={name}"),
            Self::Forget(name) => write!(f, "FDSTOREREMOVE=1\nFDNAME={name}"),
            Self::Give(from) => write!(f, "GIVE={from}"),
            Self::End => f.write_str("END=1"),
        }
    }
}

impl<'a> Message<'a> {
    /// `None` for what is none.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(found, _)| *found == key).map(|(_, it)| it)
        };
        if value("FDSTORE").is_some() {
            return value("FDNAME").map(Self::Keep);
        }
        if value("FDSTOREREMOVE").is_some() {
            return value("FDNAME").map(Self::Forget);
        }
        if let Some(from) = value("GIVE") {
            return from.parse().ok().map(Self::Give);
        }
        value("END").map(|_| Self::End)
    }
}

/// What a keeper says to whoever asks it to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Whoever has brought them is still there.
    Busy,
    /// The names of the descriptors that come along, and where to go on asking; none where that was all.
    Given { next: u64, names: Vec<String> },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("BUSY=1"),
            Self::Given { next, names } => write!(f, "NEXT={next}\nNAMES={}", names.join(":")),
        }
    }
}

impl Answer {
    /// `None` for what is none.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if text == "BUSY=1" {
            return Some(Self::Busy);
        }
        let (next, names) = text.strip_prefix("NEXT=")?.split_once("\nNAMES=")?;
        let names = names.split(':').filter(|name| !name.is_empty());
        Some(Self::Given {
            next: next.parse().ok()?,
            names: names.map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_heard() {
        let all = [
            Message::Keep("+"),
            Message::Forget("evenkeel+7"),
            Message::Give(u64::MAX),
            Message::End,
        ];
        for message in all {
            assert_eq!(Message::read(message.to_string().as_bytes()), Some(message));
        }
        let given = |names: &[&str]| Answer::Given {
            next: 3,
            names: names.iter().map(ToString::to_string).collect(),
        };
        for answer in [Answer::Busy, given(&[]), given(&["+", "evenkeel+7", "+"])] {
            assert_eq!(Answer::read(answer.to_string().as_bytes()), Some(answer));
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "FDSTORE=1", "GIVE=-1", "\u{fc}", "READY=1\nFDNAME=x"] {
            assert_eq!(Message::read(text.as_bytes()), None, "{text}");
            assert_eq!(Answer::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Message::read(b"\xff"), None);
    }
}
