//! Which tasks and notifications wait for whom: on demand, oldest first, so that what waits stays in the database.
//!
//! Only what somebody serves is held here: a worker in this process, an open poll stream, or the pusher for an `http://` address.
//! Each opens a [`Subscription`](crate::subscription::Subscription), and wakes only when there is something for it.

use serde_json::json;
use std::collections::{HashMap, HashSet, VecDeque};
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

#[derive(Debug, Default)]
struct Queues {
    /// By pooled address; only those that are served.
    tasks: HashMap<String, Queue>,
    /// Notifications, by address.
    inboxes: HashMap<String, Inbox>,
    /// Handed over and not yet taken, by task.
    out: HashMap<String, Out>,
    subscribers: HashMap<u64, Subscriber>,
    next_subscriber: u64,
    /// `http://` addresses that have something and are not served yet.
    push: HashSet<String>,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The database may hold more than `waiting`.
    more: bool,
    served_by: usize,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inbox {
    messages: VecDeque<String>,
    served_by: usize,
    /// Since when nobody serves it.
    left: Option<Instant>,
    arrived: Arc<Notify>,
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

#[derive(Debug)]
struct Out {
    address: String,
    version: i64,
    since: Instant,
    holder: u64,
}

#[derive(Debug)]
struct Subscriber {
    out: usize,
    window: usize,
    room: Arc<Notify>,
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
            queues.subscribers.insert(id, Subscriber { out: 0, window, room: room.clone() });
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
            let held: Vec<String> =
                queues.out.iter().filter(|(_, out)| out.holder == id).map(|(task, _)| task.clone()).collect();
            for task in held {
                queues.hand_back(&task);
            }
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
        self.with(|queues| queues.no_longer_out(task));
    }

    /// A task could not be taken under a version: whoever was offered that need not be offered it again.
    pub fn stale(&self, task: &str, version: i64) {
        self.with(|queues| {
            if queues.out.get(task).is_some_and(|out| out.version == version) {
                queues.no_longer_out(task);
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
            let Some(subscriber) = queues.subscribers.get_mut(&id).filter(|one| one.out < one.window) else {
                return Next::Full;
            };
            let mut refill = Vec::new();
            for address in addresses {
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
            if refill.is_empty() { Next::Nothing } else { Next::Refill(refill) }
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
                || queues.tasks.values().any(|queue| !queue.waiting.is_empty())
                || queues.inboxes.values().any(|inbox| inbox.left.is_some())
        })
    }

    /// Queues again what was handed over and not taken for so long, and forgets what waits for those that did not come back.
    pub fn attend(&self, redelivery: Duration) {
        self.with(|queues| {
            let late: Vec<String> = queues
                .out
                .iter()
                .filter(|(_, out)| out.since.elapsed() >= redelivery)
                .map(|(task, _)| task.clone())
                .collect();
            for task in late {
                queues.hand_back(&task);
            }
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

impl Queues {
    fn no_longer_out(&mut self, task: &str) -> Option<Out> {
        let out = self.out.remove(task)?;
        self.give_room(out.holder);
        Some(out)
    }

    fn give_room(&mut self, holder: u64) {
        if let Some(subscriber) = self.subscribers.get_mut(&holder) {
            subscriber.out = subscriber.out.saturating_sub(1);
            subscriber.room.notify_one();
        }
    }

    /// A task that was handed over is offered again, if the database still has it for that.
    fn hand_back(&mut self, task: &str) {
        let Some(out) = self.no_longer_out(task) else { return };
        // Without its queue nobody serves it: whoever comes to serve it asks the database.
        if let Some(queue) = self.tasks.get_mut(&out.address) {
            queue.more = true;
            queue.arrived.notify_one();
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
