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
    /// Workflows that have ended.
    pub ended: BTreeSet<String>,
    /// When each step was reported, RFC 3339 as the log has it.
    pub first_steps: BTreeMap<String, String>,
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
        match (target, fields["step"].as_u64()) {
            ("pawl::plugin", Some(step)) => {
                let step = (workflow.to_owned(), step);
                if self.reported.contains(&step) {
                    self.redone.insert(step);
                }
            }
            ("pawl::step", Some(step)) if fields["message"] == "step completed" => {
                let digest = fields["digest"].as_str().unwrap_or_default().to_owned();
                let at = line["timestamp"].as_str().unwrap_or_default().to_owned();
                self.first_steps.entry(workflow.to_owned()).or_insert(at);
                self.reported.insert((workflow.to_owned(), step));
                self.steps.insert((workflow.to_owned(), step), digest);
            }
            ("pawl::workflow", _) => {
                self.ended.insert(workflow.to_owned());
            }
            _ => {}
        }
    }

    /// Steps of one workflow so far.
    pub fn steps_of(&self, workflow: &str) -> u64 {
        self.steps.keys().filter(|(of, _)| of == workflow).count() as u64
    }
}
