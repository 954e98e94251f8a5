//! What happens to the fleet and when: a list that follows from a seed.

use super::proxy::Mode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Workers that are there all the time. One more comes and goes.
pub const WORKERS: usize = 3;
pub const FOURTH: usize = WORKERS;

/// A zombie stands still for longer than this.
pub const LEASE: Duration = Duration::from_secs(2);

/// How much happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    pub kills: u32,
    pub time: Duration,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Worker(usize),
    Broker,
    Store,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Kafka,
    Store,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL.
    Kill(Target),
    Start(Target),
    /// SIGSTOP.
    Stop(usize),
    /// SIGCONT.
    Continue(usize),
    /// What a worker's connections to one side suffer from now on.
    Link(usize, Side, Mode),
    /// The other version of the plugin.
    Swap,
    /// SIGTERM to the fourth worker.
    Leave,
}

/// An act and when it is due, from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: Duration,
    pub act: Act,
}

/// What there is to do at a moment; whom it hits is decided when it is known who is up.
#[derive(Debug, Clone, Copy)]
enum Wish {
    KillWorker,
    KillBroker,
    KillStore,
    Stop,
    Link,
    Swap,
    Visit,
}

/// One in fifty kills is the broker's, and one the store's.
const SHARE: u32 = 50;
/// How often the rest happens.
const STOPS_EVERY: f64 = 6.0;
const LINKS_EVERY: f64 = 4.0;
const SWAPS_EVERY: f64 = 10.0;
const VISITS_EVERY: f64 = 40.0;

/// The acts of a plan in the order in which they are due.
pub fn schedule(plan: &Plan) -> Vec<Due> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let apart = (plan.kills / SHARE).max(1).min(plan.kills / 3);
    let seconds = plan.time.as_secs_f64();
    let times = |every: f64| ((seconds / every) as u32).max(1);
    let mut wishes: Vec<(f64, Wish)> = Vec::new();
    // These take a while to recover from, so they are spread evenly.
    let mut spread = |count: u32, wish: Wish| {
        let part = seconds / f64::from(count.max(1));
        wishes.extend((0..count).map(|n| ((f64::from(n) + random.random_range(0.2..0.8)) * part, wish)));
    };
    spread(apart, Wish::KillBroker);
    spread(apart, Wish::KillStore);
    spread(times(VISITS_EVERY), Wish::Visit);
    let anywhere = [
        (plan.kills - 2 * apart, Wish::KillWorker),
        (times(STOPS_EVERY), Wish::Stop),
        (times(LINKS_EVERY), Wish::Link),
        (times(SWAPS_EVERY), Wish::Swap),
    ];
    for (count, wish) in anywhere {
        wishes.extend((0..count).map(|_| (random.random_range(0.0..seconds), wish)));
    }
    wishes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut drawn =
        Drawn { random, due: Vec::new(), worker_free: [0.0; WORKERS + 1], link_free: Default::default(), visit: None };
    for (at, wish) in wishes {
        drawn.draw(at, wish);
    }
    // Stable: what was decided first comes first.
    drawn.due.sort_by_key(|due| due.at);
    drawn.due
}

/// The list as it grows.
struct Drawn {
    random: StdRng,
    due: Vec<Due>,
    /// From when on a worker is up and runs.
    worker_free: [f64; WORKERS + 1],
    link_free: [[f64; 2]; WORKERS + 1],
    /// From when to when the fourth worker is there.
    visit: Option<(f64, f64)>,
}

impl Drawn {
    fn add(&mut self, at: f64, act: Act) {
        self.due.push(Due { at: Duration::from_millis((at * 1000.0) as u64), act });
    }

    fn draw(&mut self, at: f64, wish: Wish) {
        match wish {
            Wish::KillBroker => {
                self.restart(at, Target::Broker, 3.0);
            }
            Wish::KillStore => {
                self.restart(at, Target::Store, 3.0);
            }
            Wish::KillWorker => {
                let (worker, at) = self.worker(at);
                self.worker_free[worker] = self.restart(at, Target::Worker(worker), 1.5);
            }
            Wish::Stop => {
                let (worker, at) = self.worker(at);
                let until = at + LEASE.as_secs_f64() + self.random.random_range(0.5..3.0);
                if worker == FOURTH && !self.visits(until + 1.0) {
                    return;
                }
                self.worker_free[worker] = until;
                self.add(at, Act::Stop(worker));
                self.add(until, Act::Continue(worker));
            }
            Wish::Link => {
                let worker = self.random.random_range(0..WORKERS);
                let side = if self.random.random_bool(0.5) { Side::Kafka } else { Side::Store };
                let mode = match self.random.random_range(0..3) {
                    0 => Mode::Cut,
                    1 => Mode::Stall,
                    _ => Mode::Delay(Duration::from_millis(self.random.random_range(20..1500))),
                };
                let free = &mut self.link_free[worker][side as usize];
                let at = at.max(*free);
                let until = at + self.random.random_range(0.5..5.0);
                *free = until;
                self.add(at, Act::Link(worker, side, mode));
                self.add(until, Act::Link(worker, side, Mode::Open));
            }
            Wish::Swap => self.add(at, Act::Swap),
            Wish::Visit => {
                let until = at + self.random.random_range(8.0..14.0);
                self.visit = Some((at, until));
                self.worker_free[FOURTH] = at;
                self.add(at, Act::Start(Target::Worker(FOURTH)));
                self.add(until, Act::Leave);
            }
        }
    }

    /// Kills; answers when the target starts again.
    fn restart(&mut self, at: f64, target: Target, longest: f64) -> f64 {
        let again = at + self.random.random_range(0.0..longest);
        self.add(at, Act::Kill(target));
        self.add(again, Act::Start(target));
        again
    }

    fn visits(&self, at: f64) -> bool {
        self.visit.is_some_and(|(from, until)| (from..until).contains(&at))
    }

    /// A worker that is up; or the one that will be up first, and when.
    fn worker(&mut self, at: f64) -> (usize, f64) {
        // Not shortly before it leaves.
        let there = WORKERS + usize::from(self.visits(at) && self.visits(at + 2.0));
        let up: Vec<usize> = (0..there).filter(|worker| self.worker_free[*worker] <= at).collect();
        if up.is_empty() {
            let free = |worker: usize| self.worker_free[worker];
            let first = (1..WORKERS).fold(0, |first, other| if free(other) < free(first) { other } else { first });
            return (first, free(first));
        }
        (up[self.random.random_range(0..up.len())], at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan { kills: 1000, time: Duration::from_secs(1500), seed }
    }

    fn kills(due: &[Due], of: impl Fn(Target) -> bool) -> usize {
        due.iter().filter(|due| matches!(due.act, Act::Kill(target) if of(target))).count()
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        assert_eq!(schedule(&plan(7)), schedule(&plan(7)));
        assert_ne!(schedule(&plan(7)), schedule(&plan(8)));
    }

    #[test]
    fn there_are_as_many_kills_as_planned() {
        let due = schedule(&plan(1));
        assert_eq!(kills(&due, |_| true), 1000);
        assert_eq!(kills(&due, |target| target == Target::Broker), 20);
        assert_eq!(kills(&due, |target| target == Target::Store), 20);
        let short = schedule(&Plan { kills: 40, time: Duration::from_secs(80), seed: 1 });
        assert_eq!(kills(&short, |_| true), 40);
        assert_eq!(kills(&short, |target| target == Target::Broker), 1);
        assert_eq!(kills(&short, |target| target == Target::Store), 1);
    }

    #[test]
    fn every_kind_of_disturbance_comes_and_is_undone() {
        for seed in 0..20 {
            let due = schedule(&plan(seed));
            assert!(due.is_sorted_by_key(|due| due.at));
            let (mut up, mut running, mut open) = ([true, true, true, false], [true; 4], [[true; 2]; 4]);
            let mut stops = 0;
            for Due { act, .. } in &due {
                match *act {
                    Act::Kill(Target::Worker(worker)) => assert!(std::mem::take(&mut up[worker]), "seed {seed}"),
                    Act::Start(Target::Worker(worker)) => {
                        assert!(!std::mem::replace(&mut up[worker], true), "seed {seed}")
                    }
                    Act::Leave => assert!(std::mem::take(&mut up[FOURTH]), "seed {seed}"),
                    Act::Stop(worker) => {
                        assert!(up[worker] && std::mem::take(&mut running[worker]), "seed {seed}");
                        stops += 1;
                    }
                    Act::Continue(worker) => running[worker] = true,
                    Act::Link(worker, side, mode) => open[worker][side as usize] = mode == Mode::Open,
                    _ => {}
                }
            }
            assert_eq!((up, running, open), ([true, true, true, false], [true; 4], [[true; 2]; 4]), "seed {seed}");
            assert!(stops > 200);
            let all = |act: fn(&Act) -> bool| due.iter().filter(|due| act(&due.act)).count();
            assert!(all(|act| *act == Act::Swap) > 100);
            assert!(all(|act| *act == Act::Leave) > 30);
            for side in [Side::Kafka, Side::Store] {
                assert!(due.iter().any(|due| matches!(due.act, Act::Link(_, s, Mode::Cut) if s == side)));
                assert!(due.iter().any(|due| matches!(due.act, Act::Link(_, s, Mode::Stall) if s == side)));
                assert!(due.iter().any(|due| matches!(due.act, Act::Link(_, s, Mode::Delay(_)) if s == side)));
            }
        }
    }
}
