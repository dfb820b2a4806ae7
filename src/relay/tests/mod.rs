//! How [`Flow`](super::Flow) is tested without a kernel: by scripts that say what each call answers
//! (`traps`, `turns`), and by seeded random schedules over a model of two sockets (`schedule`). What goes from
//! one process to the next needs one (`handed_over`).

mod handed_over;
mod model;
mod schedule;
mod script;
mod sockets;
mod traps;
mod turns;
