//! Lines: the same however they are cut, never over their length, never with a line feed.
#![no_main]

use evenkeel::wire::line::LineReader;
use libfuzzer_sys::fuzz_target;

/// The lines, what is left without an end, and whether all were short enough.
fn lines<'a>(
    max_bytes: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Vec<u8>>, Vec<u8>, bool) {
    let mut reader = LineReader::new(max_bytes);
    let mut lines = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.read(&mut piece) {
                Ok(Some(line)) => {
                    assert!(line.len() <= max_bytes && !line.contains(&b'\n'));
                    lines.push(line.to_vec());
                }
                Ok(None) => assert!(piece.is_empty()),
                Err(_) => return (lines, reader.rest().to_vec(), false),
            }
            assert!(reader.rest().len() <= max_bytes);
        }
    }
    (lines, reader.rest().to_vec(), true)
}

fuzz_target!(|bytes: &[u8]| {
    let [max_bytes, size, bytes @ ..] = bytes else {
        return;
    };
    let (max_bytes, size) = (usize::from(*max_bytes), usize::from(*size).max(1));
    let whole = lines(max_bytes, std::iter::once(bytes));
    let cut = lines(max_bytes, bytes.chunks(size));
    // Of a line that is too long, a cut decides how much had come.
    assert_eq!((&cut.0, cut.2), (&whole.0, whole.2));
    assert!(!whole.2 || cut.1 == whole.1);
});
