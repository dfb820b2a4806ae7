//! evenkeel, a layer-4 TCP load balancer for Linux.
//!
//! ```text
//!  process --- commands ---> worker 0..n-1 <--- verdicts --- prober
//!     ^                        |      ^
//!     | requests               |      +-- accepted sockets, from a busier worker
//!   admin <-- reads counters --+
//!                              +-- records --> access log writer
//! ```
//! Modules stand here in the order of their layers: each knows those above it in this list and none
//! below. docs/architecture.md walks a byte, a verdict and a config key through them.

#[cfg(not(target_os = "linux"))]
compile_error!("evenkeel relies on epoll, splice and SO_REUSEPORT: Linux only");

// Leaves: import nothing of ours, but for time, which is the kernel's.
pub mod sys;
// It knows the kernel.
pub mod clock;
// Nor do these know more than the time.
pub mod address;
pub mod end;
pub mod ids;
pub mod timers;
pub mod units;
pub mod wire;
// Know addresses and the kernel.
pub mod bind;
pub mod systemd;
// Pure decisions: leaves only.
pub mod balance;
pub mod config;
// It knows how a config names servers.
pub mod admission;
pub mod relay;
// It may know how a flow is told.
pub mod handover;
// It keeps what a handover would tell.
pub mod park;
// Shared running state: what is counted and told, then what it is counted of.
pub mod mailbox;
pub mod telemetry;
// These know the counters.
pub mod pool;
pub mod roster;
// Threads: each owns a loop; they never import each other.
pub mod admin;
pub mod prober;
pub mod resolver;
pub mod worker;
// Wiring: knows everyone.
pub mod process;
// What the machine must have for it.
pub mod doctor;
// Something to look at: its own servers and load around a process.
pub mod demo;
// The program.
pub mod cli;
