//! Finds bytes in what arrives in pieces, across the borders of the pieces.
//!
//! Knuth, Morris and Pratt's search: it keeps one number between pieces and no bytes, and each
//! byte costs the same however hostile the text, where a buffer and a plain search would not.

/// What is looked for, and how much of it has just been seen.
#[derive(Debug)]
pub(super) struct Needle {
    bytes: Box<[u8]>,
    /// For each length that matched: the longest shorter beginning that it also ends with.
    shorter: Box<[usize]>,
    matched: usize,
}

impl Needle {
    /// An empty needle is found in anything, even in nothing.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut needle = Self {
            bytes: bytes.into(),
            shorter: vec![0; bytes.len()].into(),
            matched: 0,
        };
        // The table of a beginning is all that is needed to find the next entry: search in itself.
        for (index, &byte) in bytes.iter().enumerate().skip(1) {
            needle.step(byte);
            needle.shorter[index] = needle.matched;
        }
        needle.restart();
        needle
    }

    /// Forgets what was seen.
    pub(super) fn restart(&mut self) {
        self.matched = 0;
    }

    /// Reads on; true from the piece on in which the needle ends.
    pub(super) fn is_found_in(&mut self, piece: &[u8]) -> bool {
        for &byte in piece {
            if self.is_found() {
                break;
            }
            self.step(byte);
        }
        self.is_found()
    }

    /// Whether it was seen.
    pub(super) fn is_found(&self) -> bool {
        self.matched == self.bytes.len()
    }

    fn step(&mut self, byte: u8) {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.shorter[self.matched - 1];
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_needle_is_found_at_once() {
        assert!(Needle::new(b"").is_found());
    }

    proptest! {
        /// Of two letters, so that beginnings repeat and matches are frequent.
        #[test]
        fn it_finds_what_a_plain_search_finds(
            needle in "[ab]{1,8}", text in "[ab]{0,60}", cut in 0_usize..60,
        ) {
            let bytes = needle.as_bytes();
            let holds = |text: &[u8]| text.windows(bytes.len()).any(|part| part == bytes);
            let mut searched = Needle::new(needle.as_bytes());
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(searched.is_found_in(head), holds(head));
            prop_assert_eq!(searched.is_found_in(tail), text.contains(&needle));
            searched.restart();
            prop_assert_eq!(searched.is_found_in(text.as_bytes()), text.contains(&needle));
        }
    }
}
