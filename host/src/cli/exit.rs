//! Exit codes, and the one place where an error is printed.

use crate::config::ConfigError;
use std::process::ExitCode;

/// The command line or the configuration was wrong.
pub const USAGE: u8 = 2;

/// What `--help` says about exit codes.
pub const HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong command line or configuration; 130 ended by a second ctrl-c or SIGTERM

Example:
  pawl dev
  pawl produce --brokers localhost:9092 --topic records_to_be_deleted -n 10";

/// A command line that parses but makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Prints the error, if there is one, and picks the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            let usage = e.is::<ConfigError>() || e.is::<UsageError>();
            if usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}
