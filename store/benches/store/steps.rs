//! Steps per second in process against the ceiling: many short workflows at a time, and single ones of growing length.

use crate::ceiling::Ceiling;
use crate::report::{Report, median};
use crate::rig::{Rig, STEPS, open};
use crate::{Scale, folder};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Many workflows of six steps at a time.
pub async fn throughput(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let dir = folder()?;
    let store = open(&dir.path().join("store.db")).await?;
    let mut in_process = Rig::on(&store)?;
    let mut ceiling = Rig::new(Arc::new(Ceiling::default()))?;
    let mut whole = Rig::new(Arc::new(Ceiling::with_whole_records()))?;
    // What is slow once (the first pages, the allocator) is no part of it.
    ceiling.run(scale.workflows / 5, STEPS).await?;
    in_process.run(scale.workflows / 5, STEPS).await?;
    whole.run(scale.workflows / 5, STEPS).await?;
    let (mut theirs, mut wholes, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let (commits, sent, mut elapsed) = (store.commits(), in_process.sent(), Duration::ZERO);
    for _ in 0..scale.rounds {
        theirs.push(ceiling.run(scale.workflows, STEPS).await?);
        wholes.push(whole.run(scale.workflows, STEPS).await?);
        let begun = Instant::now();
        ours.push(in_process.run(scale.workflows, STEPS).await?);
        elapsed += begun.elapsed();
    }
    let (commits, sent) = (store.commits() - commits, in_process.sent() - sent);
    report.note("ceiling_steps_per_s", median(&theirs));
    report.note("ceiling_whole_records_steps_per_s", median(&wholes));
    report.note("in_process_steps_per_s", median(&ours));
    report.note("in_process_ratio", median(&ours) / median(&theirs));
    report.note("in_process_ratio_whole_records", median(&ours) / median(&wholes));
    report.note("commits_per_s", commits as f64 / elapsed.as_secs_f64());
    report.note("requests_per_commit", sent as f64 / commits as f64);
    ceiling.stop().await?;
    whole.stop().await?;
    in_process.stop().await?;
    store.close().await?;
    Ok(())
}

/// One workflow at a time, of so many steps: what a step costs must not grow.
pub async fn long(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    /// Steps of a workflow, and how many such workflows make one round.
    const LENGTHS: [(u64, u64); 4] = [(10, 100), (100, 10), (1000, 1), (10_000, 1)];
    let dir = folder()?;
    let store = open(&dir.path().join("store.db")).await?;
    let mut in_process = Rig::on(&store)?;
    let mut ceiling = Rig::new(Arc::new(Ceiling::default()))?;
    in_process.run_in_turn(20, 10).await?;
    ceiling.run_in_turn(20, 10).await?;
    let mut speeds = vec![(Vec::new(), Vec::new()); LENGTHS.len()];
    for _ in 0..3 {
        for ((steps, workflows), (theirs, ours)) in LENGTHS.into_iter().zip(&mut speeds) {
            let steps = if scale.quick { steps.min(2000) } else { steps };
            theirs.push(ceiling.run_in_turn(workflows, steps).await?);
            ours.push(in_process.run_in_turn(workflows, steps).await?);
        }
    }
    let micros = |speeds: &[f64]| 1e6 / median(speeds);
    for ((steps, _), (theirs, ours)) in LENGTHS.into_iter().zip(&speeds) {
        report.note(format!("ceiling_per_step_us_{steps}"), micros(theirs));
        report.note(format!("per_step_us_{steps}"), micros(ours));
    }
    let ((ceiling_short, short), (ceiling_long, long)) = (&speeds[0], &speeds[LENGTHS.len() - 1]);
    report.note("ceiling_per_step_ratio_10000_vs_10", median(ceiling_long) / median(ceiling_short));
    report.note("per_step_ratio_10000_vs_10", median(long) / median(short));
    ceiling.stop().await?;
    in_process.stop().await?;
    store.close().await?;
    Ok(())
}
