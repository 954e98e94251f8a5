//! The live view of `pawl dev`: a bar per message with its steps, the version that runs them, and what it waits for.

use crate::clock::now_ms;
use crate::workflow::observe::{Happening, What};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

/// More messages than that are counted, not drawn.
const ROWS: usize = 20;
/// A bar is this wide at most; from then on the number tells.
const BAR: u64 = 24;
const REDRAW: Duration = Duration::from_millis(200);

/// Draws until `stop`.
pub async fn show(view: MultiProgress, mut happenings: Receiver<Happening>, stop: CancellationToken) {
    let mut screen = Screen::new(view);
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            happening = happenings.recv() => match happening {
                Ok(happening) => screen.apply(happening),
                Err(RecvError::Lagged(missed)) => screen.missed += missed,
                Err(RecvError::Closed) => break,
            },
            _ = redraw.tick() => screen.draw(now_ms()),
        }
    }
    screen.clear();
}

struct Screen {
    view: MultiProgress,
    summary: ProgressBar,
    rows: BTreeMap<String, Row>,
    completed: u64,
    dead: u64,
    missed: u64,
}

#[derive(Default)]
struct Row {
    bar: Option<ProgressBar>,
    steps: u64,
    digest: String,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Queued,
    Running,
    Sleeping {
        until_ms: u64,
    },
    Waiting {
        name: String,
    },
}

impl Screen {
    fn new(view: MultiProgress) -> Self {
        let summary = view.add(line());
        Screen { view, summary, rows: BTreeMap::new(), completed: 0, dead: 0, missed: 0 }
    }

    fn apply(&mut self, happening: Happening) {
        let ended = matches!(happening.what, What::Completed { .. } | What::DeadLettered { .. });
        let row = self.rows.entry(happening.workflow.clone()).or_default();
        match happening.what {
            What::Created => {}
            What::Calling { step, digest } => {
                row.steps = row.steps.max(step);
                row.digest = digest;
                row.state = State::Running;
            }
            What::Stepped { steps } => row.steps = steps,
            What::Sleeping { until_ms } => row.state = State::Sleeping { until_ms },
            What::Waiting { name } => row.state = State::Waiting { name },
            What::Completed { .. } => self.completed += 1,
            What::DeadLettered { .. } => self.dead += 1,
        }
        if ended && let Some(Row { bar: Some(bar), .. }) = self.rows.remove(&happening.workflow) {
            self.view.remove(&bar);
        }
    }

    fn draw(&mut self, now_ms: u64) {
        let drawn = self.rows.values().filter(|row| row.bar.is_some()).count();
        let mut free = ROWS.saturating_sub(drawn);
        let width = self.rows.keys().take(ROWS).map(|id| id.chars().count()).max().unwrap_or(0).min(40);
        for (workflow, row) in &mut self.rows {
            if row.bar.is_none() && free > 0 {
                free -= 1;
                row.bar = Some(self.view.insert_before(&self.summary, line()));
            }
            if let Some(bar) = &row.bar {
                bar.set_message(row.text(workflow, width, now_ms));
            }
        }
        let hidden = self.rows.len().saturating_sub(ROWS);
        let hidden = if hidden > 0 { format!(" ({hidden} not shown)") } else { String::new() };
        let missed = if self.missed > 0 { ", the view is behind" } else { "" };
        self.summary.set_message(format!(
            "{} under way{hidden}, {} completed, {} dead letters{missed}   ctrl-c ends",
            self.rows.len(),
            self.completed,
            self.dead
        ));
    }

    fn clear(self) {
        for bar in self.rows.into_values().filter_map(|row| row.bar) {
            bar.finish_and_clear();
        }
        self.summary.finish_and_clear();
    }
}

impl Row {
    fn text(&self, workflow: &str, width: usize, now_ms: u64) -> String {
        let id: String = workflow.chars().take(width).collect();
        let bar = "■".repeat(self.steps.min(BAR) as usize);
        let digest: String = self.digest.chars().take(8).collect();
        let state = match &self.state {
            State::Queued => "queued".to_owned(),
            State::Running => "running".to_owned(),
            State::Sleeping { until_ms } => {
                let left = Duration::from_millis(until_ms.saturating_sub(now_ms) / 100 * 100);
                format!("sleeping, {} left", humantime::format_duration(left))
            }
            State::Waiting { name } => format!("waiting for `{name}`"),
        };
        format!("{id:<width$}  {bar:<5} step {:<4} {digest:<8}  {state}", self.steps)
    }
}

fn line() -> ProgressBar {
    // A template without placeholders that could be wrong.
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}
