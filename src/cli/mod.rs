//! The command line: what was typed, to capabilities and options, to one plain function each.
//!
//! Layer 4 (commands). Each command's file has its `main`: what was typed, done and shown. Results go through `Out`,
//! progress through `Progress`, errors are rendered in error.rs. Exit 0: did it and passed; 1: did it and found
//! something; 2: could not. Must never decide what a library function could.

#![allow(clippy::disallowed_methods, reason = "effects: reads the environment once")]

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
pub use self::build::{Format, Which};
use self::out::colored;
use self::session::Call;
pub use self::session::Session;
use crate::runner::cancel;

pub mod adopt;
pub mod approve;
mod args;
pub mod attest;
pub mod build;
pub mod bundle;
pub mod check;
mod competition;
mod console;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod error;
mod facts;
pub mod files;
pub mod image;
pub mod init;
pub mod inspect;
pub mod inspect_weights;
pub mod key;
pub mod lock;
mod out;
pub mod project;
mod render;
pub mod run;
mod session;
pub mod store;
pub mod train;
pub mod verify;

/// Parses what was typed, runs it, prints, and says how it went.
pub fn main() -> ExitCode {
    if let Some(code) = crate::runner::embedded::stage(std::env::args_os()) {
        return code;
    }
    let cli = match Cli::try_parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { 2 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let (json, color) = (cli.global.json, colored(cli.global.color));
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_broken_pipe)) {
                return ExitCode::from(2);
            }
            if json {
                // Whoever reads JSON reads it from standard output, failures too.
                let text = serde_json::to_string_pretty(&error::take_apart(&error)).unwrap_or_default();
                drop(writeln!(std::io::stdout(), "{text}"));
            }
            // Nobody may be there any more to read it.
            drop(write!(std::io::stderr(), "{}", error::render(&error, color)));
            // As a shell says it of a program that Ctrl-C ended.
            ExitCode::from(if cancel::asked() { 130 } else { 2 })
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

fn run(cli: Cli) -> Result<ExitCode> {
    let call = Call::new(cli.global);
    if matches!(cli.command, Command::Train(_) | Command::Verify(_) | Command::Run(_) | Command::Demo(_)) {
        cancel::heed().context("cannot heed Ctrl-C")?;
    }
    match &cli.command {
        Command::Demo(args) => demo::main(args, &call),
        Command::Init(args) => init::main(args, &call),
        Command::Lock(args) => lock::main(args, &call),
        Command::Fetch(args) => lock::main_fetch(args, &call),
        Command::Vendor(args) => store::main_vendor(args, &call),
        Command::Adopt(args) => adopt::main(args, &call),
        Command::Train(args) => train::main(args, &call),
        Command::Run(args) => run::main(args, &call),
        Command::Doctor => doctor::main(&call),
        Command::Build(args) => build::main(args, &call),
        Command::Bundle(args) => bundle::main(args, &call),
        Command::Verify(args) => verify::main(args, &call),
        Command::Check(args) => check::main(args, &call),
        Command::Rules(args) => check::main_rules(args, &call),
        Command::Approve(args) => approve::main(args, &call),
        Command::Competition(command) => competition::main(command, &call),
        Command::Image(command) => image::main(command, &call),
        Command::Diff(args) => diff::main(args, &call),
        Command::Inspect(args) => inspect::main(args, &call),
        Command::Key(command) => key::main(command, &call),
        Command::Attest(command) => attest::main(command, &call),
        Command::Store(command) => store::main(command, &call),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "pack", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
