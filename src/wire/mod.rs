//! What arrives from a network, read: bytes in; a value, "more is needed" or an error out.
//!
//! Whoever sent the bytes is taken to be hostile: nothing here panics on any input, and memory is
//! bounded by constants. Sockets, clocks and verdicts are the business of the callers.

pub mod client_hello;
pub mod hpack;
pub mod http;
pub mod http2;
pub mod line;
pub mod mysql;
pub mod postgres;
pub mod protobuf;
pub mod proxy_protocol;
