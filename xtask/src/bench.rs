//! stub
#[derive(Debug, clap::Subcommand)] pub enum BenchCommand { /// x
Pipeline }
pub fn run(_: &BenchCommand) -> anyhow::Result<bool> { Ok(true) }
