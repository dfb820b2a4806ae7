//! How [`Flow`](super::Flow) is tested without a kernel: by scripts that say what each call answers.

mod script;
mod traps;
mod turns;
