//! What the old process (O) and the new one (N) say to each other, and in which order.
//!
//! ```text
//! N  Hello                 or Refused, at any time before Took: O serves on
//! O  Hello
//! O  World, descriptors    N makes its own config of it what is served, with doors held back
//! N  Ready                 so far O serves, and N may take as long as its first health checks do
//! O  (all workers stand still)
//! O  Counts, Connections..., Complete
//! N  Took                  its workers hold everything, and stand still
//! O  Go                    from here on O touches nothing, unless N comes to its end
//! N  Serving               O hangs up, closes its descriptors, and is gone soon
//! N  (its workers go on)   once O has hung up, or takes long to
//! ```
//! Before `Serving`, whatever goes wrong (another message, a wrong count, silence, the end of N) makes O go
//! on as if nothing had happened; N then ends, because O kills it, or its socket says that O will not say `Go`.

use std::os::fd::{AsFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{DESCRIPTORS_MAX, FrameError, Message, Receiver, Sender};
use super::world::World;

/// Bytes of text in one message: even if each had to be escaped, it stays below what one may have.
const PIECE_BYTES: usize = 512 * 1024;
/// Most bytes of a value that comes in pieces: a hundred times ten thousand servers.
const LARGE_MAX: usize = 512 * 1024 * 1024;

/// N cannot do it, and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// In words for whoever has asked for the upgrade.
    pub reason: String,
}

impl Message for Refused {
    const KIND: u16 = 2;
}

/// Part of a value that may be larger than a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Piece {
    /// Of its JSON.
    text: String,
    is_last: bool,
}

impl Message for Piece {
    const KIND: u16 = 3;
}

/// Only its descriptors matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Descriptors {}

impl Message for Descriptors {
    const KIND: u16 = 4;
}

/// N has made everything ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ready {}

impl Message for Ready {
    const KIND: u16 = 5;
}

/// All connections have been said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Complete {
    /// How many there were.
    pub connections: u64,
}

impl Message for Complete {
    const KIND: u16 = 6;
}

/// N holds them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Took {
    /// How many there are.
    pub connections: u64,
}

impl Message for Took {
    const KIND: u16 = 7;
}

/// O touches nothing from here on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Go {}

impl Message for Go {
    const KIND: u16 = 8;
}

/// N serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Serving {
    /// What N says of itself, for whoever has asked for the upgrade.
    pub program: String,
}

impl Message for Serving {
    const KIND: u16 = 9;
}

/// Sends a value of any size.
///
/// # Errors
/// As [`Sender::send`].
pub fn send_large(outlet: &mut Sender, value: &impl Serialize) -> Result<(), FrameError> {
    let text = serde_json::to_string(value).map_err(|source| FrameError::Json {
        kind: Piece::KIND,
        source,
    })?;
    let mut rest = text.as_str();
    loop {
        let (piece, others) = rest.split_at(boundary(rest));
        rest = others;
        let piece = Piece {
            text: piece.to_owned(),
            is_last: rest.is_empty(),
        };
        outlet.send(&piece, &[])?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Where the next piece of a text ends: between two characters.
fn boundary(text: &str) -> usize {
    let at_most = text.len().min(PIECE_BYTES);
    let ends = (0..=at_most).rev();
    ends.into_iter()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(at_most)
}

/// Receives what [`send_large`] has sent.
///
/// # Errors
/// As [`Receiver::expect`]; it is another value, or larger than any that is sent.
pub fn receive_large<T: DeserializeOwned>(inlet: &mut Receiver) -> Result<T, FrameError> {
    let mut text = String::new();
    loop {
        let (piece, _) = inlet.expect::<Piece>()?;
        text.push_str(&piece.text);
        if text.len() > LARGE_MAX {
            return Err(FrameError::TooLong(text.len()));
        }
        if piece.is_last {
            break;
        }
    }
    serde_json::from_str(&text).map_err(|source| FrameError::Json {
        kind: Piece::KIND,
        source,
    })
}

/// Sends a world and its descriptors, which stay open here as well.
///
/// # Errors
/// As [`Sender::send`].
pub fn send_world(
    outlet: &mut Sender,
    world: &World,
    descriptors: &[impl AsFd],
) -> Result<(), FrameError> {
    send_large(outlet, world)?;
    for some in descriptors.chunks(DESCRIPTORS_MAX) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        outlet.send(&Descriptors {}, &some)?;
    }
    Ok(())
}

/// Receives a world and its descriptors, as many as it says.
///
/// # Errors
/// As [`Receiver::expect`]; there are more descriptors than it says.
pub fn receive_world(inlet: &mut Receiver) -> Result<(World, Vec<OwnedFd>), FrameError> {
    let world: World = receive_large(inlet)?;
    let announced = world.descriptors();
    let mut descriptors = Vec::new();
    while descriptors.len() < announced {
        let (_, some) = inlet.expect::<Descriptors>()?;
        let came = descriptors.len() + some.len();
        if some.is_empty() || came > announced {
            return Err(FrameError::Count { announced, came });
        }
        descriptors.extend(some);
    }
    Ok((world, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::channel;
    use crate::handover::world::{DoorState, ServerState};
    use std::fs::File;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    fn pair() -> (Sender, Receiver) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let timeout = Duration::from_secs(20);
        let (outlet, _) = channel(ours, timeout).unwrap();
        let (_, inlet) = channel(theirs, timeout).unwrap();
        (outlet, inlet)
    }

    #[test]
    fn a_world_of_any_size_arrives_with_its_descriptors() {
        let (mut outlet, mut inlet) = pair();
        let server = |number| ServerState {
            number,
            // Longer in bytes than in characters, wherever it is cut.
            name: format!("s\u{e9}rveur-{number}"),
            ..ServerState::default()
        };
        let doors = |count| DoorState {
            descriptors: count,
            ..DoorState::default()
        };
        let world = World {
            servers: (0..20_000).map(server).collect(),
            doors: vec![
                doors(2),
                doors(u32::try_from(DESCRIPTORS_MAX).unwrap()),
                doors(0),
            ],
            ..World::default()
        };
        let descriptors: Vec<OwnedFd> = (0..world.descriptors())
            .map(|_| File::open("/dev/null").unwrap().into())
            .collect();
        let sent = world.clone();
        let sending = thread::spawn(move || send_world(&mut outlet, &sent, &descriptors));
        let (came, descriptors) = receive_world(&mut inlet).unwrap();
        sending.join().unwrap().unwrap();
        assert_eq!(came, world);
        assert_eq!(descriptors.len(), world.descriptors());
    }

    #[test]
    fn more_descriptors_than_were_announced_are_an_error() {
        let (mut outlet, mut inlet) = pair();
        let world = World {
            passed: vec!["web".to_owned()],
            ..World::default()
        };
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        send_world(&mut outlet, &world, &[null(), null()]).unwrap();
        let outcome = receive_world(&mut inlet);
        assert!(
            matches!(outcome, Err(FrameError::Count { .. })),
            "{outcome:?}"
        );
    }

    #[test]
    fn what_is_new_is_passed_over_and_what_is_missing_has_a_default() {
        let (mut outlet, mut inlet) = pair();
        let newer = serde_json::json!({
            "process": {"pid": 7, "mood": "good"},
            "servers": [{"number": 1, "pool": "web", "colour": {"red": 1}}],
            "guests": [1, 2, 3],
        });
        send_large(&mut outlet, &newer).unwrap();
        let world: World = receive_large(&mut inlet).unwrap();
        assert_eq!((world.process.pid, world.process.upgrades), (7, 0));
        assert_eq!(world.servers[0].pool, "web");
        assert_eq!(world.servers[0].standing, None);
    }
}
