//! HTTP/1 answers: read alike however they are cut, with no more of a body than came.
#![no_main]

use evenkeel::wire::http::{HttpError, Item, ResponseReader};
use libfuzzer_sys::fuzz_target;

/// What an answer is made of; what came before an error counts, too.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: Option<u16>,
    body: Vec<u8>,
    is_whole: bool,
    end: Option<Result<(), HttpError>>,
}

fn answer<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Answer {
    let mut reader = ResponseReader::new();
    let mut answer = Answer::default();
    for mut piece in pieces {
        loop {
            match reader.read(&mut piece) {
                Ok(None) => break assert!(piece.is_empty()),
                Ok(Some(Item::Status(status))) => {
                    assert!((100..=999).contains(&status));
                    assert_eq!(answer.status.replace(status), None);
                }
                Ok(Some(Item::Body(part))) => {
                    assert!(answer.status.is_some() && !answer.is_whole && !part.is_empty());
                    answer.body.extend_from_slice(part);
                }
                Ok(Some(Item::End)) => {
                    assert!(answer.status.is_some() && !answer.is_whole);
                    answer.is_whole = true;
                }
                Err(error) => {
                    answer.end = Some(Err(error));
                    return answer;
                }
            }
        }
    }
    answer.end = Some(reader.end());
    answer
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = answer(std::iter::once(bytes));
    assert!(whole.body.len() <= bytes.len());
    let size = usize::from(*size).max(1);
    assert_eq!(answer(bytes.chunks(size)), whole);
});
