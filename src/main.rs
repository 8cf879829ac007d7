//! The `pack` program: parse, run, print the error once, return an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pack::cli::main()
}
