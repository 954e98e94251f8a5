//! stub
pub fn run_in_foreground() -> anyhow::Result<bool> { Ok(true) }
