//! evenkeel, a layer-4 TCP load balancer for Linux.

#[cfg(not(target_os = "linux"))]
compile_error!("evenkeel relies on epoll, splice and SO_REUSEPORT: Linux only");

// Leaves: import nothing of ours.
pub mod clock;
pub mod end;
pub mod ids;
pub mod units;
// Pure decisions: leaves only.
pub mod balance;
pub mod config;
// Wiring: knows everyone.
pub mod cli;
