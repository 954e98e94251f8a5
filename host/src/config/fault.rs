//! The faults of a configuration file, all at once, each with its line.

use std::fmt;
use std::ops::Range;

/// Why a configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no such file.
    Missing {
        /// The path that was looked for.
        path: String,
    },
    /// The file can't be read.
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The file can be read and is wrong.
    Faults {
        /// Its path.
        file: String,
        /// Its text, with `${NAME}` as written: no value from the environment gets into an error.
        text: String,
        /// In the order of the file.
        faults: Vec<Fault>,
    },
    /// The file is right, but not enough for a worker.
    NotRunnable(String),
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where in the text, in bytes.
    pub span: Range<usize>,
    /// The key's path, such as `route[1].retry.first`; empty for a fault of the syntax.
    pub key: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Missing { path } => write!(
                f,
                "there is no {path}; `pawl config sample > {path}` makes one to begin with, `pawl dev` works without"
            ),
            ConfigError::Unreadable { path, reason } => write!(f, "can't read {path}: {reason}"),
            ConfigError::NotRunnable(reason) => f.write_str(reason),
            ConfigError::Faults { file, text, faults } => {
                writeln!(f, "{} {} in {file}", faults.len(), if faults.len() == 1 { "fault" } else { "faults" })?;
                for (index, fault) in faults.iter().enumerate() {
                    if index > 0 {
                        writeln!(f)?;
                    }
                    fault.render(f, file, text)?;
                }
                Ok(())
            }
        }
    }
}

impl Fault {
    fn render(&self, f: &mut fmt::Formatter<'_>, file: &str, text: &str) -> fmt::Result {
        let start = floor_boundary(text, self.span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let number = text[..start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let line = text[line_start..line_end].trim_end();
        let end = floor_boundary(text, self.span.end).clamp(start, line_end);
        let width = text[start..end].trim_end().chars().count().max(1);
        let gutter = " ".repeat(number.to_string().len());
        writeln!(f, "  {file}:{number}:{column}")?;
        // Tabs stay tabs, so that the mark stands below what it marks.
        let indent: String = text[line_start..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "  {number} | {line}")?;
        writeln!(f, "  {gutter} | {indent}{}", "^".repeat(width))?;
        match self.key.as_str() {
            "" => writeln!(f, "  {}", self.message),
            key => writeln!(f, "  `{key}`: {}", self.message),
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
