//! The command line: a subcommand is a file here, a variant of [`Command`] and an arm of `run`.

mod broker;
mod completions_script;
mod config;
mod consume;
mod dead_letters;
mod dev;
mod exit;
mod live;
mod logging;
mod plugin;
mod produce;
mod promises;
mod run;
mod settings;
mod shutdown;
mod store;
mod topics;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::Path;
use std::process::ExitCode;

/// Durable Kafka workers whose business logic is a hot-swappable WebAssembly component.
#[derive(Debug, Parser)]
#[command(name = "pawl", version, after_help = exit::HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Format of the log on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Log more: -v debug, -vv trace (PAWL_LOG overrides, e.g. PAWL_LOG=pawl=debug)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log warnings and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a worker
    Run(run::RunArgs),
    /// Run everything in one process, for development: broker, store and worker, with a live view
    Dev(dev::DevArgs),
    /// Run a broker for development (librdkafka's mock: in memory, no durability, no security)
    Broker(broker::BrokerArgs),
    /// Produce messages to a topic
    Produce(produce::ProduceArgs),
    /// Print the records of a topic, one JSON object per line
    Consume(consume::ConsumeArgs),
    /// Create topics
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// List and settle what workflows wait for
    #[command(subcommand)]
    Promises(promises::PromisesCommand),
    /// List, show and replay what could not be processed
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// The durable store on its own: serve it to several workers, look after its file
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Write the project of a new plugin; check, call and test one without Kafka; pull, push and choose which version runs
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Check a configuration file, or print a sample
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell
    CompletionsScript(completions_script::ScriptArgs),
}

/// Parses the command line, runs the command, prints its error.
pub fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = crate::fail_point::from_environment();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors, and go to stdout.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let output = cli.output;
    let result = match cli.command {
        Command::Run(args) => run::run(args, &output),
        Command::Dev(args) => dev::run(args, &output),
        Command::Broker(args) => broker::run(args, &output),
        Command::Produce(args) => produce::run(args, &output),
        Command::Consume(args) => consume::run(args, &output),
        Command::Topics(command) => topics::run(command, &output),
        Command::Promises(command) => promises::run(command, &output),
        Command::DeadLetters(command) => dead_letters::run(command, &output),
        Command::Store(command) => store::run(command, &output),
        Command::Plugin(command) => plugin::run(command, &output),
        Command::Config(command) => config::run(command),
        Command::CompletionsScript(args) => completions_script::run(args),
    };
    exit::report(result)
}

/// Writes a file of which whoever waits for it sees all or nothing.
fn write_whole(path: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    written.with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(sub.has_subcommands() || help.contains("Example"), "`{path} --help` has no example");
                check(sub, &path);
            }
        }
        check(&Cli::command(), "pawl");
    }
}
