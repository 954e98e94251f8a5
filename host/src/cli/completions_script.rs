//! `pawl completions-script`: what a shell needs to complete the command line.

use super::Cli;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl completions-script bash > /etc/bash_completion.d/pawl")]
pub struct ScriptArgs {
    /// The shell
    shell: Shell,
}

pub fn run(args: ScriptArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pawl", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(())
}
