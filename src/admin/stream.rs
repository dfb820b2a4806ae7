//! Server-sent events: the status each second, and what happens as it happens, until the reader goes
//! away or the process ends.
//!
//! A reader that takes nothing for a while is cut off: it looks again by itself, and `Last-Event-ID`
//! says where it was.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use http_body_util::channel::{Channel, Sender};
use jiff::Timestamp;
use jiff::fmt::strtime;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::desk::Desk;
use super::fault::Fault;
use super::phase::{Phase, Phases};
use super::reply;
use super::routes::AtDesk;
use super::serve::Ending;
use crate::clock::Now;
use crate::telemetry::events::Event;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How often events are looked for: soon enough to look live, and one short lock each time.
const LOOK: Duration = Duration::from_millis(200);
/// The status goes out with every so many looks: once a second.
const STATUS_LOOKS: u32 = 5;
/// What a new reader is told of the past.
const PAST_EVENTS: u64 = 50;
/// Messages between the stream and the connection.
const AHEAD: usize = 2;

/// Marks an answer whose body ends by itself only when the process does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endless;

#[derive(Serialize)]
struct ShownEvent<'a> {
    number: u64,
    time: String,
    kind: &'static str,
    text: &'a str,
}

pub(super) async fn events(
    State(desk): AtDesk,
    Extension(phases): Extension<Phases>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let streams = Arc::clone(&desk.streams);
    let place = streams.try_acquire_owned().map_err(|_| {
        let most = desk.bounds.streams;
        Fault::unavailable(format!("{most} event streams are open already: close one"))
    })?;
    let seen = first_seen(&headers, desk.shared.events.last());
    let (sender, body) = Channel::<Bytes, Infallible>::new(AHEAD);
    let stream = Stream {
        desk,
        sender,
        phases,
        seen,
        _place: place,
    };
    tokio::spawn(stream.run());
    let mut response = reply::stream(Body::new(body));
    response.extensions_mut().insert(Endless);
    Ok(response)
}

/// The number of the last event that the reader need not be told.
fn first_seen(headers: &HeaderMap, last: u64) -> u64 {
    let value = headers.get(LAST_EVENT_ID);
    let number = value
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok());
    number
        // A number from the future was counted by an earlier process.
        .filter(|number| *number <= last)
        .unwrap_or(last.saturating_sub(PAST_EVENTS))
}

/// One reader's stream.
struct Stream {
    desk: Arc<Desk>,
    sender: Sender<Bytes>,
    phases: Phases,
    /// The number of the last event that was sent.
    seen: u64,
    _place: OwnedSemaphorePermit,
}

/// Why a reader is told no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// It has gone away, or wanted the head of the answer alone.
    Away,
    /// It takes nothing.
    Stuck,
}

impl Stream {
    async fn run(mut self) {
        let mut stopping = self.desk.stopping.clone();
        let gone = tokio::select! {
            gone = self.tell_all() => gone,
            // The body ends in order with the sender.
            _ = stopping.wait_for(Ending::is_set) => Gone::Away,
        };
        if gone == Gone::Stuck {
            self.phases.send_replace(Phase::Over);
        }
    }

    async fn tell_all(&mut self) -> Gone {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = 0;
        loop {
            looks.tick().await;
            if let Err(gone) = self.tell_once(look == 0).await {
                return gone;
            }
            look = (look + 1) % STATUS_LOOKS;
        }
    }

    async fn tell_once(&mut self, is_status_due: bool) -> Result<(), Gone> {
        if is_status_due {
            let status = self.desk.recent_status(Now::read());
            self.send(message("status", None, &status)).await?;
        }
        for event in self.desk.shared.events.after(self.seen) {
            self.seen = event.number;
            let data = shown(&event);
            self.send(message("event", Some(event.number), &data))
                .await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: Bytes) -> Result<(), Gone> {
        let sent = timeout(self.desk.bounds.sending, self.sender.send_data(message)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone::Away),
            Err(_) => Err(Gone::Stuck),
        }
    }
}

/// JSON has no line end in it, so that one line of data is enough.
fn message(name: &str, id: Option<u64>, data: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(data.len() + 64);
    message.extend_from_slice(format!("event: {name}\n").as_bytes());
    if let Some(id) = id {
        message.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    message.extend_from_slice(b"data: ");
    message.extend_from_slice(data);
    message.extend_from_slice(b"\n\n");
    message.into()
}

fn shown(event: &Event) -> Vec<u8> {
    let time = Timestamp::try_from(event.time).unwrap_or_default();
    let time = strtime::format("%Y-%m-%dT%H:%M:%SZ", time).unwrap_or_default();
    let shown = ShownEvent {
        number: event.number,
        time,
        kind: event.kind.word(),
        text: &event.text,
    };
    serde_json::to_vec(&shown).expect("numbers and texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_where_it_was_and_a_new_one_is_told_of_the_past() {
        for (value, last, seen) in [
            (None, 0, 0),
            (None, 20, 0),
            (None, 120, 70),
            (Some("0"), 120, 0),
            (Some("119"), 120, 119),
            (Some("120"), 120, 120),
            (Some("121"), 120, 70),
            (Some("x"), 120, 70),
            (Some("-1"), 120, 70),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(value.map(|value| (LAST_EVENT_ID, value.parse().unwrap())));
            assert_eq!(first_seen(&headers, last), seen, "{value:?} {last}");
        }
    }

    #[test]
    fn a_text_with_line_ends_stays_one_line_of_data() {
        let event = Event {
            number: 7,
            time: std::time::SystemTime::UNIX_EPOCH,
            kind: crate::telemetry::events::Kind::Changed,
            text: "a\nb\u{1b}[31m".into(),
        };
        let message = message("event", Some(7), &shown(&event));
        assert_eq!(
            String::from_utf8(message.to_vec()).unwrap(),
            "event: event\nid: 7\ndata: {\"number\":7,\"time\":\"1970-01-01T00:00:00Z\",\
             \"kind\":\"changed\",\"text\":\"a\\nb\\u001b[31m\"}\n\n"
        );
    }
}
