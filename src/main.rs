//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::cli::run(std::env::args_os())
}
