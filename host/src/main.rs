//! The `pawl` command: parses the command line, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    pawl::cli::main()
}
