//! A short text within a [`super::Reason`]: what a server has said, or what stands in our own way.
//!
//! It is plain data of a fixed size, so that reasons can be compared and copied without memory of
//! their own, and nothing that a server sends makes a log line long or changes the terminal.

use std::fmt::{self, Write};

/// Enough for an error's first line.
const MAX_BYTES: usize = 118;

const CUT: &str = "...";

/// Printable text, at most some hundred bytes: cut where it was longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Said {
    length: u8,
    bytes: [u8; MAX_BYTES],
}
const _: () = assert!(MAX_BYTES <= u8::MAX as usize);

impl Said {
    /// The text as formatted; bytes of others go in by [`Escaped`].
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut said = Self {
            length: 0,
            bytes: [0; MAX_BYTES],
        };
        if said.write_fmt(text).is_err() {
            said.put(CUT.as_bytes());
        }
        said
    }

    fn text(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        // Whole characters are all that is ever put in.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        // At most `MAX_BYTES`, by the copy before.
        self.length += u8::try_from(bytes.len()).unwrap_or(0);
    }
}

/// Fails once the text is full; room for the mark that says so always stays.
impl Write for Said {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_BYTES - CUT.len() - usize::from(self.length);
        if text.len() <= room {
            self.put(text.as_bytes());
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end));
        self.put(&text.as_bytes()[..end.unwrap_or(0)]);
        Err(fmt::Error)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// Shows bytes of others as text: what is not printable is escaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<'a>(pub(super) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\'' | '"' => f.write_char(character)?,
                    _ => character.escape_debug().fmt(f)?,
                }
            }
            chunk.invalid().escape_ascii().fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(bytes: &[u8]) -> String {
        Said::new(format_args!("says: {}", Escaped(bytes))).to_string()
    }

    #[test]
    fn text_is_printable_and_cut() {
        assert_eq!(said(b"role \"x\" is gone"), "says: role \"x\" is gone");
        assert_eq!(said(b"\x1b[2J\r\n\0\xff"), r"says: \u{1b}[2J\r\n\0\xff");
        assert_eq!(
            said("\u{202e}gro\u{df}".as_bytes()),
            "says: \\u{202e}gro\u{df}"
        );
        let long = said(&[b'a'; 500]);
        assert!(long.ends_with("aaa..."), "{long}");
        assert_eq!(long.len(), MAX_BYTES);
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_short_text(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = said(&bytes);
            prop_assert!(text.len() <= MAX_BYTES);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
