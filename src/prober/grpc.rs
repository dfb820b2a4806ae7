//! The check that asks `grpc.health.v1.Health/Check`: one unary call on an HTTP/2 connection of its
//! own, with prior knowledge or below TLS.
//!
//! The message decides, as soon as it is whole; a call that ends without one is told by its gRPC
//! status, such as UNIMPLEMENTED for a server without that service. We announce that we keep no
//! table of headers, so [`hpack`] has none to keep. Flow control cannot hold anything up: what is
//! sent is far below the windows that both sides begin with, and so is what is read at most.

use std::time::Duration;

use super::answer::{Answer, Reason};
use super::http::authority;
use super::said::{Escaped, Said};
use super::script::{Request, Talk};
use crate::address::Address;
use crate::config::{GrpcCheck, Health};
use crate::wire::http2::{self, Frame, FrameReader, Kind};
use crate::wire::{hpack, protobuf};

/// The only stream: a client's are odd.
const STREAM: u32 = 1;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// All headers of one block.
const HEADERS_MAX_BYTES: usize = 16 * 1024;

/// The answer has one number; what else may be in it in years to come has room.
const MESSAGE_MAX_BYTES: usize = 4 * 1024;

/// Before a message: whether it is compressed, and its length.
const MESSAGE_HEAD_BYTES: usize = 5;

/// `grpc-timeout` has eight digits at most; in milliseconds that is more than a day.
const TIMEOUT_MAX_MS: u128 = 99_999_999;

/// GOAWAY, after no stream of the server's and for no error.
const FAREWELL: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// One target's talk.
#[derive(Debug)]
pub(super) struct Grpc {
    /// All that is said unless the server asks for more.
    opening: Vec<u8>,
    request: Request,
    frames: FrameReader,
    reply: Reply,
}

impl Grpc {
    /// For checks of what listens at `address`.
    pub(super) fn new(check: &GrpcCheck, health: &Health, address: &Address) -> Self {
        let opening = opening(check, health, address);
        Self {
            request: Request::new(opening.as_slice()),
            opening,
            frames: FrameReader::default(),
            reply: Reply::default(),
        }
    }
}

impl Talk for Grpc {
    fn restart(&mut self) {
        self.request.clear();
        self.request.add(&self.opening);
        self.frames.restart();
        // What the last check's answer held is freed: few come in pieces.
        self.reply = Reply::default();
    }

    fn request(&self) -> &Request {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Option<Answer> {
        while !bytes.is_empty() {
            let answer = match self.frames.read(&mut bytes) {
                Ok(Some(frame)) => self.reply.take(&frame, &mut self.request),
                Ok(None) => None,
                Err(_) if !self.reply.has_begun => Some(not_http2()),
                Err(_) => Some(bad("grpc: a frame that is too long")),
            };
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    fn farewell(&self) -> &[u8] {
        if self.reply.has_begun { FAREWELL } else { &[] }
    }
}

/// What has come of the server's answer.
#[derive(Debug, Default)]
struct Reply {
    /// Its SETTINGS, which come before all else.
    has_begun: bool,
    /// Headers that did not end with their frame, and whether they are the stream's last.
    block: Vec<u8>,
    open_block: Option<bool>,
    /// Later headers are trailers.
    has_head: bool,
    /// With the five bytes before it.
    message: Vec<u8>,
}

impl Reply {
    fn take(&mut self, frame: &Frame<'_>, request: &mut Request) -> Option<Answer> {
        if !self.has_begun {
            self.has_begun = frame.kind == Kind::Settings && frame.stream == 0;
            if !self.has_begun {
                return Some(not_http2());
            }
        }
        if let Some(is_last) = self.open_block {
            let is_more = frame.kind == Kind::Continuation && frame.stream == STREAM;
            return match is_more {
                true => self.take_block(frame, frame.payload, is_last),
                false => Some(bad("grpc: headers that do not end")),
            };
        }
        match (frame.kind, frame.stream) {
            (Kind::Settings, 0) if !frame.has(http2::ACK) => {
                request.add(&http2::frame(Kind::Settings, http2::ACK, 0, b""));
                None
            }
            (Kind::Ping, 0) if !frame.has(http2::ACK) => {
                request.add(&http2::frame(Kind::Ping, http2::ACK, 0, frame.payload));
                None
            }
            (Kind::GoAway, 0) => go_away(frame.payload),
            (Kind::RstStream, STREAM) => Some(reset(frame.payload)),
            (Kind::Headers, STREAM) => {
                let Some(content) = frame.content() else {
                    return Some(bad("grpc: a frame that is padded wrongly"));
                };
                self.take_block(frame, content, frame.has(http2::END_STREAM))
            }
            (Kind::Data, STREAM) => self.take_data(frame),
            (Kind::Continuation, _) => Some(bad("grpc: headers without a beginning")),
            _ => None,
        }
    }

    /// Headers, or more of them.
    fn take_block(&mut self, frame: &Frame<'_>, piece: &[u8], is_last: bool) -> Option<Answer> {
        if self.block.len() + piece.len() > HEADERS_MAX_BYTES {
            return Some(bad("grpc: more than 16 KiB of headers"));
        }
        self.block.extend_from_slice(piece);
        if !frame.has(http2::END_HEADERS) {
            self.open_block = Some(is_last);
            return None;
        }
        self.open_block = None;
        let block = std::mem::take(&mut self.block);
        match Headers::read(&block) {
            Some(headers) => self.judge_headers(&headers, is_last),
            None => Some(bad("grpc: headers that cannot be read")),
        }
    }

    fn judge_headers(&mut self, headers: &Headers, is_last: bool) -> Option<Answer> {
        let is_head = !std::mem::replace(&mut self.has_head, true);
        match &headers.grpc_status[..] {
            b"" | b"0" => {}
            code => return Some(failed(code, &headers.grpc_message)),
        }
        if is_head {
            match headers.status {
                // Something comes before the answer.
                100..200 if !is_last => {
                    self.has_head = false;
                    return None;
                }
                200 => {}
                status => return Some(Answer::Bad(Reason::Status(status))),
            }
            if !headers.content_type.starts_with(b"application/grpc") {
                let kind = Escaped(&headers.content_type);
                let said = Said::new(format_args!("grpc: answered with content-type {kind}"));
                return Some(Answer::Bad(Reason::Said(said)));
            }
        }
        is_last.then(without_status)
    }

    fn take_data(&mut self, frame: &Frame<'_>) -> Option<Answer> {
        let content = frame.content().filter(|_| self.has_head);
        let Some(content) = content else {
            return Some(bad("grpc: data in the wrong place or padded wrongly"));
        };
        let room = MESSAGE_MAX_BYTES.saturating_sub(self.message.len());
        self.message
            .extend_from_slice(&content[..content.len().min(room)]);
        let answer = judge_message(&self.message);
        let is_over = content.len() > room || frame.has(http2::END_STREAM);
        answer.or_else(|| is_over.then(without_status))
    }
}

/// Of a header block, what matters here.
#[derive(Debug, Default)]
struct Headers {
    /// 0 where there is none.
    status: u16,
    content_type: Vec<u8>,
    grpc_status: Vec<u8>,
    grpc_message: Vec<u8>,
}

impl Headers {
    fn read(block: &[u8]) -> Option<Self> {
        let mut headers = Self::default();
        let read = hpack::fields(block, |name, value| match name {
            b":status" => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                headers.status = text.parse().unwrap_or(0);
            }
            b"content-type" => headers.content_type = value.to_vec(),
            b"grpc-status" => headers.grpc_status = value.to_vec(),
            b"grpc-message" => headers.grpc_message = value.to_vec(),
            _ => {}
        });
        read.ok().map(|()| headers)
    }
}

/// The answer of a message that is whole.
fn judge_message(bytes: &[u8]) -> Option<Answer> {
    let (head, message) = bytes.split_first_chunk::<MESSAGE_HEAD_BYTES>()?;
    let [flag, length @ ..] = head;
    if *flag != 0 {
        return Some(bad("grpc: a compressed answer that nobody asked for"));
    }
    let message = message.get(..u32::from_be_bytes(*length) as usize)?;
    Some(match protobuf::last_number(message, 1) {
        Ok(Some(1)) => Answer::Good(Reason::Fact("grpc: SERVING")),
        Ok(Some(2)) => bad("grpc: NOT_SERVING"),
        Ok(Some(3)) => bad("grpc: SERVICE_UNKNOWN"),
        Ok(None | Some(_)) => bad("grpc: UNKNOWN"),
        Err(_) => bad("grpc: an answer that cannot be read"),
    })
}

fn go_away(payload: &[u8]) -> Option<Answer> {
    let Some((head, debug)) = payload.split_first_chunk::<8>() else {
        return Some(bad("grpc: a frame that is too short"));
    };
    let [last @ .., _, _, _, _] = *head;
    let [_, _, _, _, code @ ..] = *head;
    let code = u32::from_be_bytes(code);
    // A server that is about to stop in order still answers streams up to the last.
    if code == 0 && u32::from_be_bytes(last) >= STREAM {
        return None;
    }
    let name = http2::error_name(code);
    let said = match debug {
        [] => Said::new(format_args!("grpc: GOAWAY {name}")),
        debug => Said::new(format_args!("grpc: GOAWAY {name}: {}", Escaped(debug))),
    };
    Some(Answer::Bad(Reason::Said(said)))
}

fn reset(payload: &[u8]) -> Answer {
    let code = payload
        .first_chunk()
        .map_or(u32::MAX, |code| u32::from_be_bytes(*code));
    let name = http2::error_name(code);
    let said = Said::new(format_args!("grpc: RST_STREAM {name}"));
    Answer::Bad(Reason::Said(said))
}

/// The call came to an end without a message.
fn failed(code: &[u8], message: &[u8]) -> Answer {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let number = std::str::from_utf8(code)
        .ok()
        .and_then(|code| code.parse().ok());
    let name = number.and_then(|number: usize| NAMES.get(number).copied());
    let name = name.map_or(code, str::as_bytes);
    let said = match message {
        [] => Said::new(format_args!("grpc: {}", Escaped(name))),
        _ => Said::new(format_args!(
            "grpc: {}: {}",
            Escaped(name),
            Escaped(message)
        )),
    };
    Answer::Bad(Reason::Said(said))
}

fn without_status() -> Answer {
    bad("grpc: answered without a health status")
}

fn not_http2() -> Answer {
    bad("grpc: the server does not speak HTTP/2")
}

fn bad(fact: &'static str) -> Answer {
    Answer::Bad(Reason::Fact(fact))
}

/// Preface, SETTINGS and the call, in one piece: nothing of it has to wait for the server.
fn opening(check: &GrpcCheck, health: &Health, address: &Address) -> Vec<u8> {
    let authority = check.host.clone().unwrap_or_else(|| authority(address));
    let scheme = match health.tls {
        Some(_) => "https",
        None => "http",
    };
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", &authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", &timeout(health.timeout)),
        (
            "user-agent",
            concat!("evenkeel/", env!("CARGO_PKG_VERSION")),
        ),
    ] {
        hpack::add_field(&mut block, name, value);
    }
    let settings = http2::settings(&[
        (HEADER_TABLE_SIZE, 0),
        (ENABLE_PUSH, 0),
        (MAX_HEADER_LIST_SIZE, 16 * 1024),
    ]);
    [
        http2::PREFACE.to_vec(),
        http2::frame(Kind::Settings, 0, 0, &settings),
        http2::frame(Kind::Headers, http2::END_HEADERS, STREAM, &block),
        http2::frame(
            Kind::Data,
            http2::END_STREAM,
            STREAM,
            &message(&check.service),
        ),
    ]
    .concat()
}

/// The server need not work for longer than we wait.
fn timeout(timeout: Duration) -> String {
    format!("{}m", timeout.as_millis().min(TIMEOUT_MAX_MS))
}

/// A HealthCheckRequest, with what gRPC puts before a message.
fn message(service: &str) -> Vec<u8> {
    let mut body = Vec::new();
    if !service.is_empty() {
        protobuf::add_text(&mut body, 1, service);
    }
    let mut message = vec![0];
    // The config has at most 255 bytes here.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&body);
    message
}

#[cfg(test)]
mod tests;
