//! The figures of one run: a table for people, a flat JSON object for programs.

use serde_json::{Map, Value};
use std::path::Path;

#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they were measured.
    figures: Vec<(String, Value)>,
}

impl Report {
    /// Notes a figure, with three digits after the point where it is small.
    pub fn note(&mut self, name: impl Into<String>, figure: f64) {
        let digits: i32 = match figure.abs() {
            large if large >= 1000.0 => 0,
            medium if medium >= 10.0 => 1,
            _ => 3,
        };
        let scale = 10_f64.powi(digits);
        let rounded = (figure * scale).round() / scale;
        let value = if digits == 0 { Value::from(rounded as i64) } else { Value::from(rounded) };
        self.figures.push((name.into(), value));
    }

    /// Takes over what another process noted.
    pub fn extend(&mut self, figures: Map<String, Value>) {
        self.figures.extend(figures);
    }

    pub fn as_json(&self) -> String {
        Value::from_iter(self.figures.iter().cloned()).to_string()
    }

    pub fn print(&self) {
        println!("{:<32} {:>12}", "store", "");
        for (name, value) in &self.figures {
            println!("{name:<32} {value:>12}");
        }
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, self.as_json())?;
        println!("{}", path.display());
        Ok(())
    }
}

/// The middle one.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// The figure that so many percent of them do not exceed; 0 of none.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
