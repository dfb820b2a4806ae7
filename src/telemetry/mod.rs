//! What the process tells of itself. Written by one thread, read by another, never waited for.

pub mod access_log;
pub mod counters;
mod log_file;
pub mod process_log;
