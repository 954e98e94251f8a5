//! stub
#[derive(Debug, clap::Args)] pub struct TestArgs {}
pub fn run(_: &TestArgs) -> anyhow::Result<bool> { Ok(true) }
