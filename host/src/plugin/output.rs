//! What a plugin writes to stdout and stderr, as log lines that carry the workflow's id.

use super::limits::size;
use super::log_budget::{LogBudget, Verdict};
use super::log_line::LogLine;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio_util::bytes::Bytes;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// A longer line becomes several.
const LONGEST_LINE: usize = 8 * 1024;
/// What a plugin may write at a time.
const PERMIT: usize = 64 * 1024;

/// The two streams of one call. What is left of a last line is logged when the call has ended and all handles are gone.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<Lines>>);

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What the lines carry.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) route: Arc<str>,
    pub(super) workflow: String,
    pub(super) plugin: Arc<str>,
    pub(super) step: u64,
}

struct Lines {
    source: Arc<Source>,
    budget: Arc<LogBudget>,
    limit: usize,
    left: usize,
    cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// `limit`: bytes of both streams together; the rest is cut off. `budget`: of all calls of the route.
    pub(super) fn new(source: Arc<Source>, limit: usize, budget: Arc<LogBudget>) -> Self {
        let lines = Lines { source, budget, limit, left: limit, cut: false, stdout: Vec::new(), stderr: Vec::new() };
        Output(Arc::new(Mutex::new(lines)))
    }

    /// A handle that writes to one of the streams.
    pub(super) fn stream(&self, stream: Stream) -> Writer {
        Writer { output: self.clone(), stream }
    }
}

/// A plugin's handle of one stream.
#[derive(Clone)]
pub(super) struct Writer {
    output: Output,
    stream: Stream,
}

impl Writer {
    fn append(&self, bytes: &[u8]) {
        self.output.0.lock().unwrap_or_else(PoisonError::into_inner).append(self.stream, bytes);
    }
}

impl Lines {
    fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let (kept, excess) = bytes.split_at(bytes.len().min(self.left));
        self.left -= kept.len();
        let mut pending = std::mem::take(self.pending(stream));
        for piece in kept.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(piece);
            while pending.len() > LONGEST_LINE && !(pending.len() == LONGEST_LINE + 1 && pending.ends_with(b"\n")) {
                let rest = pending.split_off(boundary(&pending, LONGEST_LINE));
                self.log(stream, &pending);
                pending = rest;
            }
            if pending.ends_with(b"\n") {
                pending.pop();
                self.log(stream, &pending);
                pending.clear();
            }
        }
        *self.pending(stream) = pending;
        if !excess.is_empty() && !self.cut {
            self.cut = true;
            self.flush();
            let text = format!(
                "[cut off after {}: raise `limits.log` of the route in pawl.toml to see the rest]",
                size(self.limit)
            );
            self.log(stream, text.as_bytes());
        }
    }

    fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn flush(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(self.pending(stream));
            if !line.is_empty() {
                self.log(stream, &line);
            }
        }
    }

    fn log(&self, stream: Stream, line: &[u8]) {
        let Source { route, workflow, plugin, step } = self.source.as_ref();
        let (route, plugin) = (route.as_ref(), plugin.as_ref());
        let LogLine { level, message, fields } = LogLine::read(line);
        let stream_name = stream.name();
        // The level of an event is fixed where it stands.
        macro_rules! log {
            ($level:ident) => {{
                // What nobody wants to see takes nothing from the budget.
                if !tracing::enabled!(target: "pawl::plugin", Level::$level) {
                    return;
                }
                match self.budget.take(line.len()) {
                    Verdict::Drop => return,
                    Verdict::Log { dropped: 0 } => {}
                    Verdict::Log { dropped } => self.tell(dropped),
                }
                tracing::event!(
                    target: "pawl::plugin",
                    Level::$level,
                    route,
                    workflow,
                    plugin,
                    step,
                    stream = stream_name,
                    fields,
                    "{message}"
                )
            }};
        }
        match level.unwrap_or(stream.level()) {
            Level::TRACE => log!(TRACE),
            Level::DEBUG => log!(DEBUG),
            Level::INFO => log!(INFO),
            Level::WARN => log!(WARN),
            Level::ERROR => log!(ERROR),
        }
    }

    fn tell(&self, dropped: u64) {
        let Source { route, plugin, .. } = self.source.as_ref();
        tracing::warn!(
            target: "pawl::plugin",
            route = route.as_ref(),
            plugin = plugin.as_ref(),
            "[{dropped} lines of the route were dropped: it logs more than `limits.log-rate` in pawl.toml]"
        );
    }
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// Of a line that names none. What reaches stderr without one is a panic, a trace, a runtime's complaint.
    fn level(self) -> Level {
        match self {
            Stream::Stdout => Level::INFO,
            Stream::Stderr => Level::WARN,
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
        if let Some(dropped) = self.budget.untold() {
            self.tell(dropped);
        }
    }
}

/// Where to split so that no character is torn apart: at most `at`, unless the bytes are no UTF-8 anyway.
fn boundary(bytes: &[u8], at: usize) -> usize {
    (at - 3..=at).rev().find(|&at| bytes[at] & 0xc0 != 0x80).unwrap_or(at)
}

impl IsTerminal for Writer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Writer {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::Logs;
    use serde_json::json;

    fn output(limit: usize) -> Output {
        output_within(&Arc::new(LogBudget::new(1 << 20)), limit)
    }

    fn output_within(budget: &Arc<LogBudget>, limit: usize) -> Output {
        let source = Source { route: "records".into(), workflow: "records/7".to_owned(), plugin: "p".into(), step: 3 };
        Output::new(Arc::new(source), limit, budget.clone())
    }

    fn messages(limit: usize, writes: &[(Stream, &[u8])]) -> Vec<String> {
        let logs = Logs::capture();
        let output = output(limit);
        writes.iter().for_each(|(stream, bytes)| output.stream(*stream).append(bytes));
        drop(output);
        logs.messages("pawl::plugin")
    }

    #[test]
    fn lines_are_put_together_per_stream_and_the_last_one_is_not_lost() {
        use Stream::{Stderr, Stdout};
        let writes: &[(Stream, &[u8])] =
            &[(Stdout, b"one\ntw"), (Stderr, b"oops"), (Stdout, b"o\r\n\n"), (Stdout, b"three")];
        assert_eq!(messages(1000, writes), ["one", "two", "", "three", "oops"]);
    }

    #[test]
    fn lines_carry_route_workflow_plugin_step_and_stream() {
        let logs = Logs::capture();
        output(100).stream(Stream::Stderr).append(b"oops\n");
        let line = logs.lines().into_iter().find(|line| line["target"] == "pawl::plugin").unwrap();
        assert_eq!(line["level"], "WARN");
        let carried = json!({"route": "records", "workflow": "records/7", "plugin": "p", "step": 3, "stream": "stderr", "message": "oops"});
        assert_eq!(line["fields"], carried);
    }

    #[test]
    fn lines_have_the_level_that_they_name_or_that_of_their_stream() {
        use Stream::{Stderr, Stdout};
        let logs = Logs::capture();
        for (stream, line) in [
            (Stdout, "there"),
            (Stderr, "there"),
            (Stdout, "ERROR: gone"),
            (Stderr, "[info] there"),
            (Stderr, r#"{"level":"error","msg":"gone","id":7}"#),
            // Below what is logged.
            (Stderr, "level=debug there"),
        ] {
            output(1000).stream(stream).append(format!("{line}\n").as_bytes());
        }
        let lines = logs.lines();
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line["level"].as_str().unwrap(), line["fields"]["message"].as_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("INFO", "there"),
                ("WARN", "there"),
                ("ERROR", "ERROR: gone"),
                ("INFO", "[info] there"),
                ("ERROR", "gone")
            ]
        );
        assert_eq!(lines[4]["fields"]["fields"], r#"{"id":7}"#);
    }

    #[test]
    fn what_exceeds_the_limit_is_cut_with_one_marker() {
        let marker = "[cut off after 5 B: raise `limits.log` of the route in pawl.toml to see the rest]";
        let writes: &[(Stream, &[u8])] = &[(Stream::Stdout, b"abc\ndefg\n"), (Stream::Stdout, b"more\n")];
        assert_eq!(messages(5, writes), ["abc", "d", marker]);
    }

    #[test]
    fn nothing_forges_a_line_or_drives_a_terminal() {
        let bytes: &[u8] = b"\x1b[2J\tcr\rlf\xff\n";
        assert_eq!(messages(100, &[(Stream::Stdout, bytes)]), ["\\u{1b}[2J\tcr\\rlf\u{fffd}"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let line = "é".repeat(LONGEST_LINE);
        let exact = "x".repeat(LONGEST_LINE);
        let text = format!("a{line}\n{exact}\n");
        let lines = messages(usize::MAX, &[(Stream::Stdout, text.as_bytes())]);
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [LONGEST_LINE - 1, LONGEST_LINE, 2, LONGEST_LINE]);
        assert_eq!(lines[..3].concat(), format!("a{line}"));
    }

    #[test]
    fn a_burst_and_then_silence_says_how_many_lines_are_missing() {
        let logs = Logs::capture();
        let budget = Arc::new(LogBudget::new(1000));
        output_within(&budget, usize::MAX).stream(Stream::Stdout).append("there\n".repeat(10_000).as_bytes());
        let messages = logs.messages("pawl::plugin");
        let missing = |message: &String| -> Option<usize> {
            message.strip_prefix('[')?.split_once(" lines of the route")?.0.parse().ok()
        };
        let dropped: usize = messages.iter().filter_map(missing).sum();
        assert!(messages.iter().filter(|message| *message == "there").count() + dropped == 10_000, "{messages:?}");
        assert!(dropped > 0 && messages.last().is_some_and(|last| last.starts_with('[')), "{messages:?}");
    }

    #[test]
    fn what_is_below_the_level_takes_nothing_from_the_budget() {
        let logs = Logs::capture();
        let budget = Arc::new(LogBudget::new(1000));
        let output = output_within(&budget, usize::MAX);
        output.stream(Stream::Stdout).append("level=debug there\n".repeat(10_000).as_bytes());
        output.stream(Stream::Stdout).append(b"seen\n");
        drop(output);
        assert_eq!(logs.messages("pawl::plugin"), ["seen"]);
    }
}
