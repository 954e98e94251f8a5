//! stub
#[derive(Debug, clap::Args)] pub struct DemoArgs {}
pub fn run(_: &DemoArgs) -> anyhow::Result<bool> { Ok(true) }
