//! Which tasks and notifications wait for whom: on demand, oldest first, so that what waits stays in the database.
//!
//! Only what somebody serves is held here: a worker in this process, an open poll stream, or the pusher for an `http://` address.
//! Each opens a [`Subscription`](crate::subscription::Subscription), and wakes only when there is something for it.

use crate::queues::{Inbox, Out, Queue, Queues, Subscriber};
use crate::silence::Silence;
use serde_json::json;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Tasks per address that are held in memory; beyond that they are read from the database when these are used up.
pub const WINDOW: usize = 1024;
/// Notifications that wait at one address; the oldest gives way.
const INBOX: usize = 1024;
/// Addresses at which notifications wait while nobody serves them.
const INBOXES: usize = 10_000;
/// How long they wait there: a worker whose stream broke comes back within that.
const GRACE: Duration = Duration::from_secs(30);

/// Shared by the writer and whoever serves an address.
#[derive(Debug, Default)]
pub struct Delivery {
    queues: Mutex<Queues>,
    /// An `http://` address that nobody serves has something.
    push: Notify,
}

/// A task that waits for a worker, under its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub task: String,
    pub version: i64,
}

impl Waiting {
    /// The protocol's message that offers it.
    pub fn message(&self) -> String {
        let task = json!({"id": self.task, "version": self.version});
        json!({"kind": "execute", "head": {}, "data": {"task": task}}).to_string()
    }
}

/// What is told to a subscriber that asks for a task.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Task(Waiting),
    /// Read more of these addresses from the database first.
    Refill(Vec<String>),
    /// Nothing waits.
    Nothing,
    /// It holds as many as it may.
    Full,
}

/// What wakes a subscriber.
#[derive(Debug, Clone)]
pub struct Wakers {
    /// Tasks have arrived, one waker for each address.
    pub tasks: Vec<Arc<Notify>>,
    /// A notification has arrived.
    pub inbox: Arc<Notify>,
    /// One that it holds was taken.
    pub room: Arc<Notify>,
}

impl Delivery {
    fn with<T>(&self, change: impl FnOnce(&mut Queues) -> T) -> T {
        // A panic of another holder leaves at worst a task that is delivered twice, which acquiring sorts out.
        change(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the tasks of some addresses and the notifications of one. At most `window` tasks are handed over and not yet taken.
    pub fn subscribe(&self, tasks: &[String], inbox: &str, window: usize) -> (u64, Wakers) {
        self.with(|queues| {
            let id = queues.next_subscriber;
            queues.next_subscriber += 1;
            let room = Arc::new(Notify::new());
            let subscriber = Subscriber {
                tasks: tasks.to_vec(),
                inbox: inbox.to_owned(),
                out: 0,
                window,
                silence: Silence::default(),
                room: room.clone(),
            };
            queues.subscribers.insert(id, subscriber);
            let tasks = tasks
                .iter()
                .map(|address| {
                    let queue = queues.tasks.entry(address.clone()).or_insert_with(|| Queue {
                        waiting: VecDeque::new(),
                        // What the database holds is found by the first look.
                        more: true,
                        served_by: 0,
                        arrived: Arc::default(),
                    });
                    queue.served_by += 1;
                    queues.push.remove(address);
                    queue.arrived.clone()
                })
                .collect();
            let inbox = queues.inboxes.entry(inbox.to_owned()).or_default();
            inbox.served_by += 1;
            inbox.left = None;
            (id, Wakers { tasks, inbox: inbox.arrived.clone(), room })
        })
    }

    /// The end of a subscription: what it was handed and nobody took is for others.
    pub fn unsubscribe(&self, id: u64, tasks: &[String], inbox: &str) {
        self.with(|queues| {
            queues.subscribers.remove(&id);
            queues.hand_back_all_of(id);
            queues.wake_silent();
            for address in tasks {
                let Some(queue) = queues.tasks.get_mut(address) else { continue };
                queue.served_by -= 1;
                if queue.served_by == 0 {
                    let left_over = queue.more || !queue.waiting.is_empty();
                    queues.tasks.remove(address);
                    if left_over {
                        self.ask_to_push(queues, address);
                    }
                }
            }
            if let Some(queue) = queues.inboxes.get_mut(inbox) {
                queue.served_by -= 1;
                queue.left = (queue.served_by == 0).then(Instant::now);
                if queue.served_by == 0 && !queue.messages.is_empty() {
                    self.ask_to_push(queues, inbox);
                }
            }
        });
    }

    /// A task has become pending.
    pub fn queue(&self, address: &str, waiting: Waiting) {
        self.with(|queues| match queues.tasks.get_mut(address) {
            // While the database holds older ones the order is the database's.
            Some(queue) if queue.more || queue.waiting.len() >= WINDOW => queue.more = true,
            Some(queue) => {
                queue.waiting.push_back(waiting);
                queue.arrived.notify_one();
                queues.wake_silent();
            }
            // Whoever comes to serve it finds it in the database.
            None => self.ask_to_push(queues, address),
        });
    }

    fn ask_to_push(&self, queues: &mut Queues, address: &str) {
        if is_http(address) && queues.push.len() < INBOXES && queues.push.insert(address.to_owned()) {
            self.push.notify_one();
        }
    }

    /// A task was taken or has ended.
    pub fn taken(&self, task: &str) {
        self.with(|queues| queues.answered(task));
    }

    /// A task could not be taken under a version: whoever was offered that need not be offered it again.
    pub fn stale(&self, task: &str, version: i64) {
        self.with(|queues| {
            if queues.out.get(task).is_some_and(|out| out.version == version) {
                queues.answered(task);
            }
        });
    }

    /// The lease of a worker ran out: it hangs or is gone, and what it was handed and did not take is for others.
    pub fn silent(&self, pid: &str, redelivery: Duration) {
        self.with(|queues| {
            for id in queues.of_pid(pid) {
                queues.noticed(id, redelivery);
            }
        });
    }

    /// A worker sent something that only one which is awake sends.
    pub fn heard(&self, pid: &str) {
        self.with(|queues| {
            if queues.subscribers.values().all(|subscriber| subscriber.silence == Silence::No) {
                return;
            }
            for id in queues.of_pid(pid) {
                queues.heard(id);
            }
        });
    }

    /// Everything was removed.
    pub fn reset(&self) {
        self.with(|queues| {
            for queue in queues.tasks.values_mut() {
                queue.waiting.clear();
            }
            for subscriber in queues.subscribers.values_mut() {
                subscriber.out = 0;
                subscriber.room.notify_one();
            }
            queues.out.clear();
        });
    }

    /// Puts a notification aside for an address.
    pub fn unblock(&self, address: &str, message: String) {
        self.with(|queues| {
            let push = is_http(address);
            if !queues.inboxes.contains_key(address) {
                // Nobody is there, nor was of late: the worker is gone. It asks again when it comes back.
                if !push || queues.inboxes.len() >= INBOXES {
                    tracing::debug!(address, "a notification for nobody is dropped");
                    return;
                }
                queues.inboxes.insert(address.to_owned(), Inbox { left: Some(Instant::now()), ..Inbox::default() });
            }
            let Some(inbox) = queues.inboxes.get_mut(address) else { return };
            if inbox.messages.len() == INBOX {
                tracing::warn!(address, "too many notifications wait at an address: the oldest is dropped");
                inbox.messages.pop_front();
            }
            inbox.messages.push_back(message);
            inbox.arrived.notify_one();
            if push && inbox.served_by == 0 {
                self.ask_to_push(queues, address);
            }
        });
    }

    /// The next notification for an address.
    pub fn next_unblock(&self, address: &str) -> Option<String> {
        self.with(|queues| queues.inboxes.get_mut(address)?.messages.pop_front())
    }

    /// The next task at any of a subscriber's addresses.
    pub fn next(&self, id: u64, addresses: &[String]) -> Next {
        self.with(|queues| {
            let left_to_others = queues.left_to_others(id, addresses);
            let Some(subscriber) = queues.subscribers.get_mut(&id).filter(|one| one.out < one.window) else {
                return Next::Full;
            };
            let mut refill = Vec::new();
            for address in addresses.iter().filter(|address| !left_to_others.contains(address)) {
                let Some(queue) = queues.tasks.get_mut(address) else { continue };
                if let Some(waiting) = queue.waiting.pop_front() {
                    subscriber.out += 1;
                    let (address, version) = (address.clone(), waiting.version);
                    let out = Out { address, version, since: Instant::now(), holder: id };
                    if let Some(before) = queues.out.insert(waiting.task.clone(), out) {
                        queues.give_room(before.holder);
                    }
                    // One ring stands for all that came while nobody slept, and this subscriber may have taken another's: it is
                    // passed on, at each of its addresses.
                    for address in addresses {
                        if let Some(queue) = queues.tasks.get(address).filter(|queue| !queue.waiting.is_empty()) {
                            queue.arrived.notify_one();
                        }
                    }
                    return Next::Task(waiting);
                }
                if queue.more {
                    refill.push(address.clone());
                }
            }
            match (refill.is_empty(), left_to_others.is_empty()) {
                (false, _) => Next::Refill(refill),
                (true, true) => Next::Nothing,
                (true, false) => Next::Full,
            }
        })
    }

    /// What the database holds for an address, oldest first, `WINDOW` and all that is out at most.
    pub fn refill(&self, address: &str, stored: Vec<Waiting>, complete: bool) {
        self.with(|queues| {
            let Some(queue) = queues.tasks.get_mut(address) else { return };
            let known: HashSet<&str> = queue.waiting.iter().map(|waiting| waiting.task.as_str()).collect();
            let fresh: Vec<Waiting> = stored
                .into_iter()
                .filter(|waiting| !known.contains(waiting.task.as_str()))
                .filter(|waiting| queues.out.get(&waiting.task).is_none_or(|out| out.version != waiting.version))
                .collect();
            queue.waiting.extend(fresh);
            queue.more = !complete;
            if !queue.waiting.is_empty() {
                queue.arrived.notify_one();
            }
        });
    }

    /// Whether a subscriber was handed something that was not taken yet.
    pub fn holds_any(&self, id: u64) -> bool {
        self.with(|queues| queues.subscribers.get(&id).is_some_and(|subscriber| subscriber.out > 0))
    }

    /// Asks for these addresses to be served, if they are `http://` addresses that nobody serves.
    pub fn ask_to_push_to(&self, addresses: &[String]) {
        self.with(|queues| {
            for address in
                addresses.iter().filter(|address| !queues.tasks.contains_key(*address)).cloned().collect::<Vec<_>>()
            {
                self.ask_to_push(queues, &address);
            }
        });
    }

    /// How many are handed over and not yet taken.
    pub fn out(&self) -> usize {
        self.with(|queues| queues.out.len())
    }

    /// Whether something may have to be handed over again, or forgotten, when nothing else happens.
    pub fn needs_attention(&self) -> bool {
        self.with(|queues| {
            !queues.out.is_empty()
                || queues.subscribers.values().any(|subscriber| subscriber.silence != Silence::No)
                || queues.tasks.values().any(|queue| !queue.waiting.is_empty())
                || queues.inboxes.values().any(|inbox| inbox.left.is_some())
        })
    }

    /// Queues again what was handed over and not taken for so long, and forgets what waits for those that did not come back.
    pub fn attend(&self, redelivery: Duration) {
        self.with(|queues| {
            let late: Vec<(String, u64)> = queues
                .out
                .iter()
                .filter(|(_, out)| out.since.elapsed() >= redelivery)
                .map(|(task, out)| (task.clone(), out.holder))
                .collect();
            for (task, holder) in late {
                queues.noticed(holder, redelivery);
                queues.hand_back(&task);
            }
            queues.wake_silent();
            queues.inboxes.retain(|_, inbox| inbox.left.is_none_or(|left| left.elapsed() < GRACE));
        });
    }

    /// The next `http://` address that has something and is not served. Whoever asks serves it.
    pub async fn next_to_push(&self) -> String {
        loop {
            let next = self.with(|queues| {
                let address = queues.push.iter().next().cloned()?;
                queues.push.take(&address)
            });
            match next {
                Some(address) => return address,
                None => self.push.notified().await,
            }
        }
    }
}

/// Whether messages are pushed to the address instead of being polled for.
pub fn is_http(address: &str) -> bool {
    address.starts_with("http://") || address.starts_with("https://")
}

/// The queue of an address: `poll://any@group/pid` means any worker of the group.
pub fn pool(address: &str) -> &str {
    match address.strip_prefix("poll://any@").and_then(|rest| rest.find('/')) {
        Some(slash) => &address[.."poll://any@".len() + slash],
        None => address,
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
