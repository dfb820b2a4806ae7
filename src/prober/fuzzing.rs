//! The way in for `fuzz/fuzz_targets/checks.rs`, built for fuzzing alone: a whole check without a
//! socket, as `exchange` would hold it.

use super::answer::Answer;
use super::kit::Kit;
use super::script::Script;
use crate::address::Address;
use crate::config::Health;

/// What a check makes of `pieces` and the connection's end after them. All that it has to say is
/// taken to be sent at once.
pub fn said<'a>(
    health: &Health,
    address: &Address,
    kit: &Kit,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> String {
    let mut script = Script::new(health, address, kit);
    script.restart();
    let mut answer = script.connected();
    for piece in pieces {
        if answer.is_some() {
            break;
        }
        script.sent(script.to_send().len());
        answer = script.receive(piece);
    }
    script.farewell();
    match answer.unwrap_or_else(|| script.closed()) {
        Answer::Good(reason) => format!("good: {reason}"),
        Answer::Bad(reason) => format!("bad: {reason}"),
        Answer::Unknown(reason) => format!("unknown: {reason}"),
    }
}
