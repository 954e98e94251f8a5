//! What waits at each address, what is handed over and not yet taken, and who may be handed more.

use crate::delivery::Waiting;
use crate::silence::Silence;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The state that [`Delivery`](crate::delivery::Delivery) keeps behind its lock.
#[derive(Debug, Default)]
pub struct Queues {
    /// By pooled address; only those that are served.
    pub tasks: HashMap<String, Queue>,
    /// Notifications, by address.
    pub inboxes: HashMap<String, Inbox>,
    /// Handed over and not yet taken, by task.
    pub out: HashMap<String, Out>,
    pub subscribers: HashMap<u64, Subscriber>,
    pub next_subscriber: u64,
    /// `http://` addresses that have something and are not served yet.
    pub push: HashSet<String>,
}

/// Tasks at one address.
#[derive(Debug)]
pub struct Queue {
    pub waiting: VecDeque<Waiting>,
    /// The database may hold more than `waiting`.
    pub more: bool,
    pub served_by: usize,
    pub arrived: Arc<Notify>,
}

/// Notifications at one address.
#[derive(Debug, Default)]
pub struct Inbox {
    pub messages: VecDeque<String>,
    pub served_by: usize,
    /// Since when nobody serves it.
    pub left: Option<Instant>,
    pub arrived: Arc<Notify>,
}

/// A task that was handed over.
#[derive(Debug)]
pub struct Out {
    pub address: String,
    pub version: i64,
    pub since: Instant,
    pub holder: u64,
}

/// Who is handed the tasks of some addresses.
#[derive(Debug)]
pub struct Subscriber {
    pub tasks: Vec<String>,
    pub inbox: String,
    /// How many it holds, and how many at most.
    pub out: usize,
    pub window: usize,
    pub silence: Silence,
    pub room: Arc<Notify>,
}

impl Queues {
    /// A task was taken, or is handed back.
    pub fn no_longer_out(&mut self, task: &str) -> Option<Out> {
        let out = self.out.remove(task)?;
        self.give_room(out.holder);
        Some(out)
    }

    /// The offer of a task had an answer: whoever it was made to is there.
    pub fn answered(&mut self, task: &str) {
        if let Some(out) = self.no_longer_out(task) {
            self.heard(out.holder);
        }
    }

    /// It is there.
    pub fn heard(&mut self, id: u64) {
        if let Some(subscriber) = self.subscribers.get_mut(&id).filter(|one| one.silence != Silence::No) {
            subscriber.silence = Silence::No;
            subscriber.room.notify_one();
        }
    }

    /// The subscribers of a worker: those that are sent its notifications.
    pub fn of_pid(&self, pid: &str) -> Vec<u64> {
        let named = |inbox: &str| inbox.strip_prefix("poll://uni@")?.split_once('/').map(|(_, id)| id == pid);
        let of_pid = self.subscribers.iter().filter(|(_, subscriber)| named(&subscriber.inbox) == Some(true));
        of_pid.map(|(id, _)| *id).collect()
    }

    /// A subscriber does not answer: while others do, they get what it holds and what comes.
    pub fn noticed(&mut self, id: u64, redelivery: Duration) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        subscriber.silence.noticed(Instant::now(), redelivery);
        let tasks = subscriber.tasks.clone();
        if !self.left_to_others(id, &tasks).is_empty() {
            self.hand_back_all_of(id);
        }
    }

    /// The addresses, of those of a subscriber, that it is not handed tasks of now: it is silent, and others serve them who are not. What
    /// has arrived there rings for them.
    pub fn left_to_others(&mut self, id: u64, addresses: &[String]) -> Vec<String> {
        let Some(subscriber) = self.subscribers.get_mut(&id).filter(|one| one.silence != Silence::No) else {
            return Vec::new();
        };
        if subscriber.out < subscriber.silence.allowed(Instant::now()) {
            return Vec::new();
        }
        let heard: HashSet<&String> = self
            .subscribers
            .values()
            .filter(|subscriber| subscriber.silence == Silence::No)
            .flat_map(|subscriber| &subscriber.tasks)
            .collect();
        let left: Vec<String> = addresses.iter().filter(|address| heard.contains(address)).cloned().collect();
        for queue in left.iter().filter_map(|address| self.tasks.get(address)) {
            if queue.more || !queue.waiting.is_empty() {
                queue.arrived.notify_one();
            }
        }
        left
    }

    /// Silent subscribers wait for room, not for what arrives, so that they take no ring from others. They look again.
    pub fn wake_silent(&self) {
        for subscriber in self.subscribers.values().filter(|subscriber| subscriber.silence != Silence::No) {
            subscriber.room.notify_one();
        }
    }

    /// All that a subscriber holds is offered again.
    pub fn hand_back_all_of(&mut self, id: u64) {
        let held: Vec<String> =
            self.out.iter().filter(|(_, out)| out.holder == id).map(|(task, _)| task.clone()).collect();
        for task in held {
            self.hand_back(&task);
        }
    }

    /// One less is with a subscriber.
    pub fn give_room(&mut self, holder: u64) {
        if let Some(subscriber) = self.subscribers.get_mut(&holder) {
            subscriber.out = subscriber.out.saturating_sub(1);
            subscriber.room.notify_one();
        }
    }

    /// A task that was handed over is offered again, if the database still has it for that.
    pub fn hand_back(&mut self, task: &str) {
        let Some(out) = self.no_longer_out(task) else { return };
        // Without its queue nobody serves it: whoever comes to serve it asks the database.
        if let Some(queue) = self.tasks.get_mut(&out.address) {
            queue.more = true;
            queue.arrived.notify_one();
        }
    }
}
