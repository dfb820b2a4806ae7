//! What the tests of all talks share: what a talk makes of given bytes, however they are cut, and
//! that nothing a server sends can make it panic.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::answer::Answer;
use super::script::Talk;

/// The answer to `pieces` and the connection's end after them: `+` good or `-` bad, and the reason.
/// All that the talk has to say is taken to be sent at once.
pub(super) fn said(talk: &mut impl Talk, pieces: &[&[u8]]) -> String {
    talk.restart();
    let answer = pieces.iter().find_map(|piece| {
        let sent = talk.request().rest().to_vec();
        talk.request_mut().count_sent(sent.len());
        talk.receive(piece)
    });
    // Whatever the answer, the end must be sayable.
    talk.farewell();
    match answer.unwrap_or_else(|| talk.closed()) {
        Answer::Good(reason) => format!("+ {reason}"),
        Answer::Bad(reason) => format!("- {reason}"),
        Answer::Unknown(reason) => format!("? {reason}"),
    }
}

/// The answer to each of `answers` and to bytes that are made of them is the same wherever they are
/// cut; random bytes get one, too.
pub(super) fn any_split<T: Talk>(make: impl Fn() -> T, answers: &[&[u8]]) {
    for answer in answers {
        let single: Vec<_> = answer.iter().map(std::slice::from_ref).collect();
        assert_eq!(said(&mut make(), &single), said(&mut make(), &[answer]));
    }
    let whole = answers.concat();
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(whole.clone())];
    let change = (0..whole.len(), any::<u8>());
    let noise = (
        proptest::collection::vec(byte, 0..120),
        0_usize..120,
        change,
    );
    TestRunner::deterministic()
        .run(&noise, |(random, cut, (place, value))| {
            let mut changed = whole.clone();
            changed[place] = value;
            for bytes in [&random, &changed] {
                let (head, tail) = bytes.split_at(cut.min(bytes.len()));
                prop_assert_eq!(
                    said(&mut make(), &[head, tail]),
                    said(&mut make(), &[bytes])
                );
            }
            Ok(())
        })
        .unwrap();
}
