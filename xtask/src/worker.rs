//! A worker as a process, and what its log tells.

use crate::process::Daemon;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts `pawl run` in `dir`; its log is appended to `worker.log`.
pub fn start(pawl: &Path, dir: &Path) -> anyhow::Result<Daemon> {
    let log = OpenOptions::new().create(true).append(true).open(log_path(dir))?;
    let mut command = Command::new(pawl);
    command.args(["run", "--log-format", "json"]).current_dir(dir).stderr(log);
    Daemon::start("the worker", &mut command)
}

pub fn log_path(dir: &Path) -> PathBuf {
    dir.join("worker.log")
}

/// Follows a worker's log.
pub struct Follower {
    path: PathBuf,
    position: u64,
    rest: Vec<u8>,
    pub history: History,
}

/// What has happened so far.
#[derive(Default)]
pub struct History {
    /// Steps whose checkpoint was reported, with the digest that ran.
    pub steps: BTreeMap<(String, u64), String>,
    /// Steps that were called after their checkpoint had been reported.
    pub redone: BTreeSet<(String, u64)>,
    /// When each workflow ended, microseconds since the epoch.
    pub ended: BTreeMap<String, i64>,
    /// When the first step of each workflow was reported, the same.
    pub first_steps: BTreeMap<String, i64>,
    reported: HashSet<(String, u64)>,
}

impl Follower {
    pub fn new(dir: &Path) -> Self {
        Follower { path: log_path(dir), position: 0, rest: Vec::new(), history: History::default() }
    }

    /// Reads what has been added; answers the new lines.
    pub fn read(&mut self) -> anyhow::Result<Vec<Value>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.position))?;
        self.position += file.read_to_end(&mut self.rest)? as u64;
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            // A worker that was killed may have left half a line, which the next one's first line then completes.
            if let Ok(line) = serde_json::from_slice::<Value>(&line) {
                self.history.add(&line);
                lines.push(line);
            }
        }
        Ok(lines)
    }

    /// The last lines, for an error.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl History {
    fn add(&mut self, line: &Value) {
        let fields = &line["fields"];
        let (Some(target), Some(workflow)) = (line["target"].as_str(), fields["workflow"].as_str()) else { return };
        let at = || line["timestamp"].as_str().and_then(microseconds).unwrap_or_default();
        match (target, fields["step"].as_u64()) {
            ("pawl::plugin", Some(step)) => {
                let step = (workflow.to_owned(), step);
                if self.reported.contains(&step) {
                    self.redone.insert(step);
                }
            }
            ("pawl::step", Some(step)) if fields["message"] == "step completed" => {
                let digest = fields["digest"].as_str().unwrap_or_default().to_owned();
                self.first_steps.entry(workflow.to_owned()).or_insert_with(at);
                self.reported.insert((workflow.to_owned(), step));
                self.steps.insert((workflow.to_owned(), step), digest);
            }
            ("pawl::workflow", _) => {
                self.ended.entry(workflow.to_owned()).or_insert_with(at);
            }
            _ => {}
        }
    }

    /// Steps of one workflow so far.
    pub fn steps_of(&self, workflow: &str) -> u64 {
        self.steps.keys().filter(|(of, _)| of == workflow).count() as u64
    }
}

/// The microseconds since the epoch of `2026-01-31T12:00:00.123456Z`.
fn microseconds(timestamp: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| timestamp.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days from a date, with years that begin in March (the leap day is then the last).
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    Some(seconds * 1_000_000 + number(20..26).or_else(|| Some(number(20..23)? * 1000)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::microseconds;

    #[test]
    fn a_timestamp_is_read() {
        assert_eq!(microseconds("1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(microseconds("2024-02-29T12:34:56.789Z"), Some(1_709_210_096_789_000));
        assert_eq!(microseconds("2024-02-29T12:34:56.789123Z"), Some(1_709_210_096_789_123));
        assert_eq!(microseconds("nonsense"), None);
    }
}
