//! Which tasks wait for a worker, and who gets them: on demand, oldest first, so that what waits stays in the database.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Tasks per address that are held in memory; beyond that they are read from the database when these are used up.
pub const WINDOW: usize = 1024;

/// Tasks to be handed over, by address. Shared by the writer and the workers' networks.
#[derive(Debug, Default)]
pub struct Delivery {
    queues: Mutex<Queues>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    by_address: HashMap<String, Queue>,
    /// Handed over and not yet taken.
    out: HashMap<String, Out>,
    /// For a worker's own address: what it listened for.
    unblocks: HashMap<String, VecDeque<String>>,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The database may hold more than `waiting`.
    more: bool,
}

impl Default for Queue {
    fn default() -> Self {
        // What is in a file when it is opened is found by the first look.
        Queue { waiting: VecDeque::new(), more: true }
    }
}

/// A task that waits for a worker, under its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub task: String,
    pub version: i64,
}

#[derive(Debug)]
struct Out {
    address: String,
    version: i64,
    since: Instant,
}

/// What a worker that asks for a task is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Task(Waiting),
    /// Read more from the database first.
    Refill,
    Nothing,
}

impl Delivery {
    fn with<T>(&self, change: impl FnOnce(&mut Queues) -> T) -> T {
        // A panic of another holder leaves at worst a task that is delivered twice, which acquiring sorts out.
        change(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A task has become pending.
    pub fn queue(&self, address: &str, waiting: Waiting) {
        self.with(|queues| {
            let queue = queues.by_address.entry(pool(address).to_owned()).or_default();
            // While the database holds older ones the order is the database's.
            if queue.more || queue.waiting.len() >= WINDOW {
                queue.more = true;
            } else {
                queue.waiting.push_back(waiting);
            }
        });
        self.changed.notify_waiters();
    }

    /// A task was taken or has ended.
    pub fn taken(&self, task: &str) {
        self.with(|queues| queues.out.remove(task));
    }

    /// Everything was removed.
    pub fn reset(&self) {
        self.with(|queues| {
            queues.by_address.clear();
            queues.out.clear();
        });
    }

    /// Puts a message aside for one worker.
    pub fn unblock(&self, address: &str, message: String) {
        self.with(|queues| {
            // Nobody listens at an address that was not opened: the worker is gone.
            if let Some(queue) = queues.unblocks.get_mut(address) {
                queue.push_back(message);
            }
        });
        self.changed.notify_waiters();
    }

    /// Opens a worker's own address.
    pub fn open(&self, unicast: &str) {
        self.with(|queues| {
            queues.unblocks.entry(unicast.to_owned()).or_default();
        });
    }

    /// Closes it.
    pub fn close(&self, unicast: &str) {
        self.with(|queues| queues.unblocks.remove(unicast));
    }

    /// The next message for a worker's own address.
    pub fn next_unblock(&self, unicast: &str) -> Option<String> {
        self.with(|queues| queues.unblocks.get_mut(unicast)?.pop_front())
    }

    /// The next task for any of the addresses.
    pub fn next(&self, addresses: &[String]) -> Next {
        self.with(|queues| {
            let mut next = Next::Nothing;
            for address in addresses {
                let address = pool(address);
                let queue = queues.by_address.entry(address.to_owned()).or_default();
                if let Some(waiting) = queue.waiting.pop_front() {
                    let out = Out { address: address.to_owned(), version: waiting.version, since: Instant::now() };
                    queues.out.insert(waiting.task.clone(), out);
                    return Next::Task(waiting);
                }
                if queue.more {
                    next = Next::Refill;
                }
            }
            next
        })
    }

    /// What the database holds for an address, oldest first, `WINDOW` and all that is out at most.
    pub fn refill(&self, address: &str, stored: Vec<Waiting>, complete: bool) {
        self.with(|queues| {
            let out = &queues.out;
            let queue = queues.by_address.entry(pool(address).to_owned()).or_default();
            let known: HashSet<&str> = queue.waiting.iter().map(|waiting| waiting.task.as_str()).collect();
            let fresh: Vec<Waiting> = stored
                .into_iter()
                .filter(|waiting| !known.contains(waiting.task.as_str()))
                .filter(|waiting| out.get(&waiting.task).is_none_or(|out| out.version != waiting.version))
                .collect();
            queue.waiting.extend(fresh);
            queue.more = !complete;
        });
        self.changed.notify_waiters();
    }

    /// How many are handed over and not yet taken.
    pub fn out(&self) -> usize {
        self.with(|queues| queues.out.len())
    }

    /// Queues again what was handed over and not taken for so long.
    pub fn redeliver(&self, after: Duration) {
        let again = self.with(|queues| {
            let late: Vec<String> = queues
                .out
                .iter()
                .filter(|(_, out)| out.since.elapsed() >= after)
                .map(|(task, _)| task.clone())
                .collect();
            for task in &late {
                if let Some(out) = queues.out.remove(task) {
                    let queue = queues.by_address.entry(out.address).or_default();
                    queue.waiting.push_back(Waiting { task: task.clone(), version: out.version });
                }
            }
            !late.is_empty()
        });
        if again {
            self.changed.notify_waiters();
        }
    }

    /// Resolves at the next change after it was first polled.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

/// `poll://any@group/pid` means any worker of the group.
pub fn pool(address: &str) -> &str {
    match address.strip_prefix("poll://any@").and_then(|rest| rest.find('/')) {
        Some(slash) => &address[.."poll://any@".len() + slash],
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(task: &str) -> Waiting {
        Waiting { task: task.to_owned(), version: 0 }
    }

    fn empty(address: &str) -> Delivery {
        let delivery = Delivery::default();
        delivery.refill(address, Vec::new(), true);
        delivery
    }

    #[test]
    fn any_worker_of_a_group_takes_from_the_same_queue() {
        assert_eq!(pool("poll://any@g/pid"), "poll://any@g");
        assert_eq!(pool("poll://any@g"), "poll://any@g");
        assert_eq!(pool("poll://uni@g/pid"), "poll://uni@g/pid");
    }

    #[test]
    fn a_full_window_leaves_the_rest_to_the_database() {
        let delivery = empty("a");
        for n in 0..=WINDOW {
            delivery.queue("a", waiting(&n.to_string()));
        }
        let addresses = ["a".to_owned()];
        for n in 0..WINDOW {
            assert_eq!(delivery.next(&addresses), Next::Task(waiting(&n.to_string())));
        }
        assert_eq!(delivery.next(&addresses), Next::Refill);
        let stored = (0..=WINDOW).map(|n| waiting(&n.to_string())).collect();
        delivery.refill("a", stored, true);
        assert_eq!(delivery.next(&addresses), Next::Task(waiting(&WINDOW.to_string())), "the others are out");
        assert_eq!(delivery.next(&addresses), Next::Nothing);
    }

    #[test]
    fn what_is_not_taken_comes_again_and_what_is_taken_does_not() {
        let delivery = empty("a");
        let addresses = ["a".to_owned()];
        delivery.queue("a", waiting("x"));
        delivery.queue("a", waiting("y"));
        delivery.next(&addresses);
        delivery.next(&addresses);
        delivery.taken("y");
        delivery.redeliver(Duration::ZERO);
        assert_eq!(delivery.next(&addresses), Next::Task(waiting("x")));
        assert_eq!(delivery.next(&addresses), Next::Nothing);
    }
}
