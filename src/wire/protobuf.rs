//! Protocol Buffers, as far as a health check needs them: numbers out of a message, a text into one.

use thiserror::Error;

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a protobuf message")]
pub struct NotAMessage;

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// The value of a field that is a number or of an enum: of several the last, as the format has it.
///
/// # Errors
/// It is no message. Groups, which are out of use, are refused as well.
pub fn last_number(mut message: &[u8], field: u64) -> Result<Option<u64>, NotAMessage> {
    let bytes = &mut message;
    let mut last = None;
    while !bytes.is_empty() {
        let key = varint(bytes)?;
        let (number, kind) = (key >> 3, key & 7);
        match kind {
            VARINT => {
                let value = varint(bytes)?;
                if number == field {
                    last = Some(value);
                }
            }
            FIXED_64 => skip(bytes, 8)?,
            FIXED_32 => skip(bytes, 4)?,
            BYTES => {
                let length = varint(bytes)?;
                skip(bytes, length)?;
            }
            _ => return Err(NotAMessage),
        }
    }
    Ok(last)
}

/// Adds a field with a text.
pub fn add_text(message: &mut Vec<u8>, field: u64, text: &str) {
    add_varint(message, field << 3 | BYTES);
    add_varint(message, text.len() as u64);
    message.extend_from_slice(text.as_bytes());
}

fn varint(bytes: &mut &[u8]) -> Result<u64, NotAMessage> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(NotAMessage)?;
        *bytes = rest;
        // Bits over the 64th are lost, as everywhere.
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(NotAMessage)
}

fn skip(bytes: &mut &[u8], count: u64) -> Result<(), NotAMessage> {
    let count = usize::try_from(count).map_err(|_| NotAMessage)?;
    *bytes = bytes.get(count..).ok_or(NotAMessage)?;
    Ok(())
}

fn add_varint(message: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return message.push(low & 0x7f);
        }
        message.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_found_among_other_fields() {
        for (message, expected) in [
            (b"".as_slice(), Ok(None)),
            (b"\x08\x01", Ok(Some(1))),
            (b"\x08\x01\x08\xac\x02", Ok(Some(300))),
            (b"\x12\x02\x08\x05\x08\x02", Ok(Some(2))),
            (b"\x0d\x01\0\0\0\x11\0\0\0\0\0\0\0\0\x10\x07", Ok(None)),
            (b"\x08", Err(NotAMessage)),
            (b"\x12\x03ab", Err(NotAMessage)),
            (b"\x0b\x0c", Err(NotAMessage)),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                Err(NotAMessage),
            ),
        ] {
            assert_eq!(last_number(message, 1), expected, "{message:?}");
        }
    }

    #[test]
    fn a_text_has_its_length_before_it() {
        let mut message = Vec::new();
        add_text(&mut message, 1, "abc");
        assert_eq!(message, b"\x0a\x03abc");
        add_text(&mut message, 1, &"x".repeat(200));
        assert_eq!(message[5..8], *b"\x0a\xc8\x01");
        assert_eq!(last_number(&message, 1), Ok(None));
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(prop_oneof![0_u8..20, any::<u8>()], 0..60),
        ) {
            let read = last_number(&bytes, 1);
            prop_assert!(read.is_err() || read != Ok(None) || !bytes.starts_with(b"\x08\x01"));
        }
    }
}
