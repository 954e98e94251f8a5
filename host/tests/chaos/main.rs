//! Everything at once: workers, store and broker are killed, stopped and cut off while messages are processed, and a checker that knows
//! only what came out says whether something was lost, done again, said twice or done out of order.

mod broker;
mod checker;
#[cfg(test)]
mod checker_tests;
mod fleet;
mod history;
mod load;
mod proxy;
mod reading;
mod run;
mod schedule;
#[allow(dead_code)]
#[path = "../end_to_end/support.rs"]
mod support;
mod unfinished;
mod watch;

use checker::Verdict;
use schedule::Plan;
use std::time::Duration;

/// Violations that are printed; there may be thousands of one cause.
const SHOWN: usize = 30;

/// What `cargo xtask chaos` asks for, or the short run that belongs to the tests.
fn plan() -> Plan {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<f64>().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    let seed = std::env::var("PAWL_SEED").ok().map(|seed| seed.parse().expect("PAWL_SEED is no number"));
    match (number("PAWL_CHAOS_KILLS"), number("PAWL_CHAOS_MINUTES")) {
        (Some(kills), Some(minutes)) => Plan {
            kills: kills as u32,
            time: Duration::from_secs_f64(minutes * 60.0),
            seed: seed.unwrap_or_else(|| rand::random_range(1..1_000_000)),
        },
        _ => Plan { kills: 40, time: Duration::from_secs(80), seed: seed.unwrap_or(1) },
    }
}

#[test]
fn nothing_is_lost_or_done_twice_under_kills() {
    let plan = plan();
    println!("chaos: PAWL_SEED={} kills={} seconds={}", plan.seed, plan.kills, plan.time.as_secs());
    let dir = tempfile::Builder::new().prefix("pawl-chaos-").tempdir().unwrap();
    // Whatever fails, what it was is in the folder.
    let dir = dir.keep();
    println!("chaos: logs in {}", dir.display());
    let (verdict, counts) = run::run(&plan, &dir);
    println!("{verdict} {counts} seed={}", plan.seed);
    assert_clean(&verdict, &plan);
    std::fs::remove_dir_all(dir).unwrap();
}

fn assert_clean(verdict: &Verdict, plan: &Plan) {
    for violation in verdict.violations.iter().take(SHOWN) {
        println!("{violation}");
    }
    let count = verdict.violations.len();
    assert!(count == 0, "{count} violations, the first {SHOWN} above; PAWL_SEED={}", plan.seed);
    assert!(verdict.messages > 0 && verdict.completed > 0, "nothing was done");
}
