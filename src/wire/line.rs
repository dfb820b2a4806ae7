//! Lines of text that end with a line feed, from bytes that come in pieces, up to a length.

/// Reads one line after another; a carriage return before the line feed is left out.
#[derive(Debug)]
pub struct LineReader {
    held: Vec<u8>,
    max_bytes: usize,
    /// True exactly while `held` has a line that was given out.
    is_whole: bool,
}

/// A line is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

impl LineReader {
    /// For lines of at most `max_bytes`, the line feed not counted.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            held: Vec::new(),
            max_bytes,
            is_whole: false,
        }
    }

    /// Forgets what has come.
    pub fn restart(&mut self) {
        self.held.clear();
        self.is_whole = false;
    }

    /// Takes bytes up to the end of a line, or all; the line where it is whole.
    ///
    /// # Errors
    /// The line is too long: its beginning is in [`Self::rest`].
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<&[u8]>, LineTooLong> {
        if self.is_whole {
            self.restart();
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let line = &bytes[..end.unwrap_or(bytes.len())];
        // One byte over the limit tells that it was passed.
        let room = (self.max_bytes + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&line[..line.len().min(room)]);
        *bytes = &bytes[end.map_or(bytes.len(), |end| end + 1)..];
        self.is_whole = end.is_some();
        if self.held.len() > self.max_bytes {
            self.held.truncate(self.max_bytes);
            return Err(LineTooLong);
        }
        let line = self.held.strip_suffix(b"\r").unwrap_or(&self.held);
        Ok(self.is_whole.then_some(line))
    }

    /// What has come of a line that has no end.
    pub fn rest(&self) -> &[u8] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lines of `pieces`, `None` where one is too long.
    fn lines(pieces: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        let mut reader = LineReader::new(4);
        let mut lines = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                lines.extend(reader.read(&mut piece).ok()?.map(<[u8]>::to_vec));
            }
        }
        Some(lines)
    }

    #[test]
    fn lines_end_with_a_line_feed() {
        let two = Some(vec![b"ab".to_vec(), b"abc".to_vec()]);
        assert_eq!(lines(&[b"ab\r\nabc\nx"]), two);
        assert_eq!(lines(&[b"ab\nabc", b"\r", b"\n"]), two);
        assert_eq!(lines(&[b"abcde"]), None);
        assert_eq!(lines(&[b"abcd\rx"]), None);
        assert_eq!(lines(&[b"abcdef\n"]), None);
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[ab\r\n]{0,30}", cut in 0_usize..30) {
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(lines(&[head, tail]), lines(&[text.as_bytes()]));
        }
    }
}
