//! HPACK (RFC 7541), HTTP/2's header compression, without its dynamic table.
//!
//! Whoever announces SETTINGS_HEADER_TABLE_SIZE as 0 gets no reference to that table, and what is
//! left is small: literals, plain or in Huffman's code, and the static table. Of the latter only
//! what health checks ask for has a name here; a field of another name is passed over.

use thiserror::Error;

/// The bytes are no header block, or refer to the dynamic table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unreadable headers")]
pub struct Unreadable;

/// Entries of the static table (RFC 7541, appendix A).
const STATIC_ENTRIES: usize = 61;
/// `:status` with these values stands at 8 and after it.
const FIRST_STATUS: usize = 8;
const STATUSES: [&[u8]; 7] = [b"200", b"204", b"206", b"304", b"400", b"404", b"500"];
const CONTENT_TYPE: usize = 31;

/// Reads a whole block and gives each field that has a name to `see`. A block of n bytes makes no
/// more than 8 n / 5 of text.
///
/// # Errors
/// It cannot be read to its end; what came before was given.
pub fn fields(mut block: &[u8], mut see: impl FnMut(&[u8], &[u8])) -> Result<(), Unreadable> {
    let bytes = &mut block;
    while let Some(&first) = bytes.first() {
        match first {
            0x80.. => {
                let index = integer(bytes, 7)?;
                let (name, value) = entry(index)?;
                see(name, value);
            }
            // A new size of a table that is not kept.
            0x20..0x40 => drop(integer(bytes, 5)?),
            _ => {
                // With or without indexing, or never to be indexed: all the same without a table.
                let index = integer(bytes, if first >= 0x40 { 6 } else { 4 })?;
                let name = match index {
                    0 => text(bytes)?,
                    _ => entry(index)?.0.to_vec(),
                };
                see(&name, &text(bytes)?);
            }
        }
    }
    Ok(())
}

/// Adds a field as it is: not compressed, not to be indexed.
pub fn add_field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        add_length(block, text.len());
        block.extend_from_slice(text.as_bytes());
    }
}

/// Name and value in the static table; empty where nobody asks for them.
fn entry(index: usize) -> Result<(&'static [u8], &'static [u8]), Unreadable> {
    if index == 0 || index > STATIC_ENTRIES {
        return Err(Unreadable);
    }
    let status = index
        .checked_sub(FIRST_STATUS)
        .and_then(|at| STATUSES.get(at));
    Ok(match (status, index) {
        (Some(status), _) => (b":status", status),
        (None, CONTENT_TYPE) => (b"content-type", b""),
        (None, _) => (b"", b""),
    })
}

/// An integer whose first byte has `prefix` bits of it.
fn integer(bytes: &mut &[u8], prefix: u32) -> Result<usize, Unreadable> {
    /// Three bytes of continuation are 2 MiB: no block is that large.
    const SHIFT_MAX: u32 = 14;
    let mask = (1_u8 << prefix) - 1;
    let mut value = usize::from(take_one(bytes)? & mask);
    if value < usize::from(mask) {
        return Ok(value);
    }
    for shift in (0..=SHIFT_MAX).step_by(7) {
        let byte = take_one(bytes)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

fn take_one(bytes: &mut &[u8]) -> Result<u8, Unreadable> {
    let (&first, rest) = bytes.split_first().ok_or(Unreadable)?;
    *bytes = rest;
    Ok(first)
}

/// A string, plain or in Huffman's code.
fn text(bytes: &mut &[u8]) -> Result<Vec<u8>, Unreadable> {
    let is_coded = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(bytes, 7)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(Unreadable)?;
    *bytes = rest;
    if is_coded {
        decoded(text)
    } else {
        Ok(text.to_vec())
    }
}

fn add_length(block: &mut Vec<u8>, length: usize) {
    const PREFIX: usize = 0x7f;
    let low = |value: usize| u8::try_from(value & PREFIX).unwrap_or(0);
    if length < PREFIX {
        return block.push(low(length));
    }
    block.push(0x7f);
    let mut rest = length - PREFIX;
    while rest > PREFIX {
        block.push(low(rest) | 0x80);
        rest >>= 7;
    }
    block.push(low(rest));
}

/// Takes Huffman's code apart, bit by bit: these are a few dozen bytes a check.
fn decoded(coded: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut text = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut code, mut length) = (0_usize, 0_usize);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | usize::from(byte >> bit & 1);
            length += 1;
            if let Some(symbol) = CODES.symbol(code, length) {
                text.push(symbol);
                (code, length) = (0, 0);
            } else if length >= CODE_BITS_MAX {
                // Only the symbol that means the end is left, and it may not be there.
                return Err(Unreadable);
            }
        }
    }
    // What fills the last byte: less than a byte, of ones.
    let is_filler = length < 8 && code == (1 << length) - 1;
    if is_filler { Ok(text) } else { Err(Unreadable) }
}

const CODE_BITS_MAX: usize = 30;

/// How many bits each byte's code has (RFC 7541, appendix B). The code is a canonical one: among
/// codes of one length the next byte has the next number, so that the lengths say all.
#[rustfmt::skip]
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

static CODES: Codes = Codes::new();

/// The code, in the order of lengths.
struct Codes {
    /// Bytes, those with the shortest codes first.
    symbols: [u8; 256],
    /// By length: the first code of it, how many there are, and where their bytes begin.
    groups: [(usize, usize, usize); CODE_BITS_MAX + 1],
}

impl Codes {
    const fn new() -> Self {
        let mut codes = Self {
            symbols: [0; 256],
            groups: [(0, 0, 0); CODE_BITS_MAX + 1],
        };
        let (mut bits, mut next, mut place) = (1, 0, 0);
        while bits <= CODE_BITS_MAX {
            next <<= 1;
            let start = place;
            place = codes.put_all(bits, place);
            codes.groups[bits] = (next, place - start, start);
            next += place - start;
            bits += 1;
        }
        codes
    }

    /// Puts the bytes whose code has so many bits from `place` on; where the next ones begin.
    const fn put_all(&mut self, bits: usize, mut place: usize) -> usize {
        let mut symbol = 0_u8;
        loop {
            if CODE_BITS[symbol as usize] as usize == bits {
                self.symbols[place] = symbol;
                place += 1;
            }
            if symbol == u8::MAX {
                return place;
            }
            symbol += 1;
        }
    }

    fn symbol(&self, code: usize, length: usize) -> Option<u8> {
        let &(first, count, start) = self.groups.get(length)?;
        let at = code.checked_sub(first).filter(|at| *at < count)?;
        self.symbols.get(start + at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(block: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
        let mut all = Vec::new();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields(block, |name, value| all.push((shown(name), shown(value))))?;
        Ok(all)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    /// As Python's `hpack` writes them: a size update, Huffman's code, names from the table.
    #[test]
    fn headers_of_another_encoder_are_read() {
        let block = bytes(
            "20885f8b1d75d0620d263d4c4d656440889acac8b21234da8f8208bf40899acac8b5254207317f8dd054ce\
             7914a8e95253db549fc7",
        );
        let expected = vec![
            field(":status", "200"),
            field("content-type", "application/grpc"),
            field("grpc-status", "12"),
            field("grpc-message", "Method not found!"),
        ];
        assert_eq!(read(&block), Ok(expected));
    }

    /// RFC 7541, C.4.1 and C.6.1, whose references to the dynamic table come later.
    #[test]
    fn the_examples_of_the_specification_are_read() {
        let request = read(&bytes("828684418cf1e3c2e5f23a6ba0ab90f4ff")).unwrap();
        assert_eq!(request[3], field("", "www.example.com"));
        let response =
            bytes("488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff");
        let response = read(&response).unwrap();
        assert_eq!(response[0], field(":status", "302"));
        assert_eq!(response[2].1, "Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = Vec::new();
        for length in [0, 126, 127, 128, 255, 300, 20_000] {
            add_field(&mut block, "name", &"v".repeat(length));
        }
        let lengths: Vec<_> = read(&block).unwrap().iter().map(|it| it.1.len()).collect();
        assert_eq!(lengths, [0, 126, 127, 128, 255, 300, 20_000]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for hex in [
            "80",               // Entry 0.
            "be",               // Entry 62: the dynamic table.
            "7e00",             // A name of it.
            "00",               // No name.
            "0001",             // A shorter name than said.
            "0000ff",           // A length without an end.
            "00007fffffffff7f", // A length of gigabytes.
            "000081fe",         // Filled with a zero.
            "000082ffff",       // More filler than a byte.
            "000084ffffffff",   // The end within a text.
        ] {
            assert_eq!(read(&bytes(hex)), Err(Unreadable), "{hex}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_or_refused(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut total = 0;
            let read = fields(&block, |name, value| total += name.len() + value.len());
            // Each byte of an entry of the table is some ten bytes of text.
            prop_assert!(total <= block.len() * 16, "{read:?}");
        }

        /// Each byte has a code, and no code begins another.
        #[test]
        fn codes_are_taken_apart(text in proptest::collection::vec(any::<u8>(), 0..50)) {
            let (mut bits, mut coded) = (String::new(), Vec::new());
            for &byte in &text {
                let length = usize::from(CODE_BITS[usize::from(byte)]);
                let (first, _, start) = CODES.groups[length];
                let at = CODES.symbols[start..].iter().position(|it| *it == byte).unwrap();
                let code = first + at;
                bits.push_str(&format!("{code:0length$b}"));
            }
            while bits.len() % 8 != 0 {
                bits.push('1');
            }
            for byte in bits.as_bytes().chunks(8) {
                coded.push(u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap());
            }
            prop_assert_eq!(decoded(&coded), Ok(text));
        }
    }
}
