//! Runs every case in every language and prints a table of it.

use crate::cases::{self, Case};
use crate::language::{Language, call, languages, limits, message, progress};
use crate::measure::{Measured, measure};
use crate::protocol::instruct;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_language_conforms() {
    let languages = languages().await;
    let mut table = Table::new(languages);
    for Case { name, checks } in cases::all() {
        let mut results = Vec::new();
        for language in languages {
            let mut result = Ok(());
            for (check, n) in checks.iter().zip(1..) {
                result = result.and(check.run(language).await.map_err(|e| format!("check {n}: {e}")));
            }
            results.push(result);
        }
        table.row(name, results);
    }
    let mut measured = Vec::new();
    for language in languages {
        measured.push(measure(&language.version).await);
    }
    table.measured(&measured);
    table.print();
    assert!(table.faults.is_empty(), "\n{}", table.faults.join("\n"));
}

/// On one thread, whose log lines are caught.
#[tokio::test]
async fn stdout_and_stderr_become_log_lines() {
    let languages = languages().await;
    let (stdout, stderr) = ("Grüße von 🦀", "жук: no such file");
    let instruction = json!({ "op": "print", "stdout": stdout, "stderr": stderr });
    let message = instruct(message(""), &instruction);
    for Language { name, version } in languages {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let writer = Buffer(buffer.clone());
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        {
            let _guard = tracing::subscriber::set_default(subscriber);
            call(version, &message, progress(), &limits()).await.result.unwrap();
        }
        let text = String::from_utf8(buffer.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines: Vec<_> = lines
            .filter(|line| line["target"] == "pawl::plugin")
            .map(|line| {
                let text = |field: &str| line["fields"][field].as_str().unwrap_or_default().to_owned();
                assert_eq!(text("workflow"), "records/7", "{name}: {line}");
                (text("stream"), text("message"))
            })
            .collect();
        lines.sort();
        let expected = [("stderr", stderr), ("stdout", stdout)].map(|(s, m)| (s.to_owned(), m.to_owned()));
        assert_eq!(lines, expected, "{name}");
    }
}

#[derive(Clone)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Table {
    lines: Vec<String>,
    faults: Vec<String>,
    languages: Vec<&'static str>,
}

impl Table {
    fn new(languages: &[Language]) -> Self {
        let languages: Vec<_> = languages.iter().map(|language| language.name).collect();
        let mut table = Table { lines: Vec::new(), faults: Vec::new(), languages };
        table.line("case", table.languages.clone());
        table
    }

    fn line(&mut self, name: &str, cells: Vec<impl std::fmt::Display>) {
        let cells: String = cells.iter().map(|cell| format!("{cell:>11}")).collect();
        self.lines.push(format!("{name:<34}{cells}"));
    }

    fn row(&mut self, case: &str, results: Vec<Result<(), String>>) {
        self.line(case, results.iter().map(|result| if result.is_ok() { "ok" } else { "FAILED" }).collect());
        for (language, result) in self.languages.iter().zip(results) {
            if let Err(fault) = result {
                self.faults.push(format!("{case} in {language}: {fault}"));
            }
        }
    }

    fn measured(&mut self, all: &[Measured]) {
        let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let ms = |time: Duration| match time.as_secs_f64() {
            seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1000.0),
            seconds => format!("{seconds:.1} s"),
        };
        self.line("time of a small call", all.iter().map(|m| ms(m.small)).collect());
        self.line("time of a call with 1 MB in and out", all.iter().map(|m| ms(m.large)).collect());
        self.line("memory of a small call", all.iter().map(|m| mib(m.memory_small)).collect());
        self.line("memory of a call with 1 MB", all.iter().map(|m| mib(m.memory_large)).collect());
        self.line("size of the component", all.iter().map(|m| mib(m.size)).collect());
        self.line("time to compile it", all.iter().map(|m| m.compiled_in.map_or("cached".to_owned(), ms)).collect());
    }

    /// Past the test harness, which keeps what successful tests print to itself.
    fn print(&self) {
        let text = format!("\n{}\n", self.lines.join("\n"));
        std::io::stdout().lock().write_all(text.as_bytes()).unwrap();
    }
}
