//! The admin thread on real sockets, spoken to by raw bytes, with a roster made by hand and a thread
//! that answers what the process would be asked.

mod access;
mod bounds;
mod client;
mod handover;
mod harness;
mod metrics;
mod readiness;
mod routes;
mod shown;
mod streams;
