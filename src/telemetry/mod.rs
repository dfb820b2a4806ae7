//! What the process tells of itself. Written by one thread, read by another, never waited for.

pub mod access_log;
pub mod counters;
pub mod process_log;
