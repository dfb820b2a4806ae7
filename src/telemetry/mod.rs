//! What the process tells of itself. Written by one thread, read by another, never waited for.

pub mod access_log;
pub mod checkup;
pub mod connection;
pub mod counters;
pub mod events;
pub mod histogram;
pub mod lag;
mod log_file;
pub mod process_log;
pub mod resolutions;
