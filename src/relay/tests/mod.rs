//! How [`Flow`](super::Flow) is tested without a kernel: by scripts that say what each call answers
//! (`traps`, `turns`), and by seeded random schedules over a model of two sockets (`schedule`).

mod model;
mod schedule;
mod script;
mod sockets;
mod traps;
mod turns;
