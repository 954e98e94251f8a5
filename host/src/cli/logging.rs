//! Sets up the log on stderr: text or JSON, and beside the live view without disturbing it.

use super::{LogFormat, Output};
use anyhow::Context;
use indicatif::MultiProgress;
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The SDK's own progress is one line and more per step, and Pawl logs steps itself.
const QUIET_DEPENDENCIES: &str = "resonate_sdk=warn,resonate::validation=off,wasmtime=warn,hyper=warn,reqwest=warn";

/// Starts logging. With `view`, lines are printed above its bars.
pub fn init(output: &Output, view: Option<MultiProgress>) -> anyhow::Result<()> {
    let level = match (output.quiet, output.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = match std::env::var("PAWL_LOG") {
        Ok(filter) => EnvFilter::try_new(&filter)
            .with_context(|| format!("PAWL_LOG=`{filter}` is no filter; an example: PAWL_LOG=info,pawl=debug"))?,
        Err(_) => EnvFilter::try_new(format!("{level},{QUIET_DEPENDENCIES}"))?,
    };
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(Stderr { view });
    let set = match output.log_format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    set.map_err(|e| anyhow::anyhow!("can't set up logging: {e}"))
}

struct Stderr {
    view: Option<MultiProgress>,
}

/// One event's line: written at once, so that lines never mix.
struct Line<'a> {
    view: Option<&'a MultiProgress>,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { view: self.view.as_ref(), bytes: Vec::with_capacity(256) }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // Whoever closed stderr does not want to read it.
        let write = || {
            let _ = io::stderr().lock().write_all(&self.bytes);
        };
        match self.view {
            Some(view) => view.suspend(write),
            None => write(),
        }
    }
}
