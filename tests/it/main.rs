//! Black-box tests: the real program between scripted peers, one topic a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(missing_docs, reason = "a test binary has no public items")]

mod balancing;
mod config;
mod demo;
mod faults;
mod harness;
mod health;
mod limits;
mod process;
mod relay;
mod servers;
mod syscalls;
mod timeouts;
mod traps;
mod workers;
