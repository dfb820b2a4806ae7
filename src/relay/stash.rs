//! Bytes that a target had no room for: what is left of one read, in memory of just that size, gone
//! as soon as they are sent. An idle flow owns none.

/// The rest of one read, at most a buffer's or a pipe's worth.
#[derive(Debug)]
pub struct Stash {
    bytes: Box<[u8]>,
    sent: usize,
}

impl Stash {
    /// Keeps `bytes`, which are not empty.
    pub fn new(bytes: Vec<u8>) -> Self {
        debug_assert!(!bytes.is_empty());
        Self {
            bytes: bytes.into_boxed_slice(),
            sent: 0,
        }
    }

    /// What is still to be sent; never empty while the stash is kept.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first `bytes` of the rest were sent; true when that was all.
    pub fn advance(&mut self, bytes: usize) -> bool {
        self.sent = (self.sent + bytes).min(self.bytes.len());
        self.sent == self.bytes.len()
    }
}
