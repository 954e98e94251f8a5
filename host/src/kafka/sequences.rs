//! Which records wait until the workflow of one before them has ended, on a route whose order matters.

use std::collections::{HashMap, VecDeque};

use super::offsets::{Partition, Token};
use crate::config::Order;
use crate::plugin::contract::Message;

/// Records of which one runs at a time. Those of an older assignment of the partition are another sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sequence {
    partition: Partition,
    epoch: u64,
    /// Absent where the whole partition is one sequence.
    key: Option<Vec<u8>>,
}

impl Sequence {
    /// `None`: the record waits for no other.
    pub(crate) fn of(order: Order, message: &Message, token: &Token) -> Option<Sequence> {
        let key = match order {
            Order::None => return None,
            Order::Partition => None,
            // Without a key there is nothing that it could have in common with others.
            Order::Key => Some(message.key.as_ref()?.0.clone()),
        };
        Some(Sequence { partition: token.partition().clone(), epoch: token.epoch(), key })
    }
}

/// The sequences of one route, and what waits in them.
#[derive(Debug)]
pub(crate) struct Sequences<R> {
    /// A sequence is here while a record of it runs.
    running: HashMap<Sequence, VecDeque<R>>,
}

impl<R> Default for Sequences<R> {
    fn default() -> Self {
        Sequences { running: HashMap::new() }
    }
}

impl<R> Sequences<R> {
    /// The next record of a sequence, in the order of the partition. It comes back if it may run now.
    pub(crate) fn admit(&mut self, sequence: &Sequence, record: R) -> Option<R> {
        match self.running.get_mut(sequence) {
            Some(waiting) => {
                waiting.push_back(record);
                None
            }
            None => {
                self.running.insert(sequence.clone(), VecDeque::new());
                Some(record)
            }
        }
    }

    /// The record that ran has ended: the one that may run now, if one waits.
    pub(crate) fn next(&mut self, sequence: &Sequence) -> Option<R> {
        let next = self.running.get_mut(sequence)?.pop_front();
        if next.is_none() {
            self.running.remove(sequence);
        }
        next
    }

    /// Forgets the sequences of partitions whose assignment does not hold any more; their next owner reads the records.
    pub(crate) fn keep(&mut self, is_current: impl Fn(&Partition, u64) -> bool) {
        self.running.retain(|sequence, _| is_current(&sequence.partition, sequence.epoch));
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.running.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::offsets::{Bounds, Offsets};
    use super::*;
    use crate::plugin::contract::Bytes;

    fn message(key: Option<&str>) -> Message {
        let key = key.map(|key| Bytes(key.as_bytes().to_vec()));
        Message { topic: "t".into(), partition: 0, offset: 0, timestamp: None, key, value: None, headers: Vec::new() }
    }

    fn offsets() -> Offsets {
        let mut offsets = Offsets::new(Bounds { records: 1000, bytes: 1000 });
        offsets.assign([("t".to_owned(), 0), ("t".to_owned(), 1)]);
        offsets
    }

    #[test]
    fn what_waits_for_what() {
        let mut offsets = offsets();
        let token = offsets.issue(&("t".into(), 0), 0).unwrap();
        let elsewhere = offsets.issue(&("t".into(), 1), 0).unwrap();
        let of = |order, key, token| Sequence::of(order, &message(key), token);
        assert_eq!(of(Order::None, Some("a"), &token), None);
        assert_eq!(of(Order::Key, None, &token), None);
        assert_eq!(of(Order::Key, Some("a"), &token), of(Order::Key, Some("a"), &token));
        assert_ne!(of(Order::Key, Some("a"), &token), of(Order::Key, Some("b"), &token));
        assert_ne!(of(Order::Key, Some("a"), &token), of(Order::Key, Some("a"), &elsewhere));
        assert_eq!(of(Order::Partition, Some("a"), &token), of(Order::Partition, None, &token));
        assert_ne!(of(Order::Partition, None, &token), of(Order::Partition, None, &elsewhere));
        offsets.revoke([&("t".to_owned(), 0)]);
        offsets.assign([("t".to_owned(), 0)]);
        let again = offsets.issue(&("t".into(), 0), 0).unwrap();
        assert_ne!(of(Order::Partition, None, &token), of(Order::Partition, None, &again));
    }

    proptest! {
        /// Records come, and those that run end, in any order: of each key one runs at a time, in the order in which they came.
        #[test]
        fn each_sequence_runs_one_after_another(keys in prop::collection::vec(0..4usize, 0..40), ends in prop::collection::vec(0..4usize, 0..200)) {
            let mut offsets = offsets();
            let token = offsets.issue(&("t".into(), 0), 0).unwrap();
            let sequence = |key: usize| Sequence::of(Order::Key, &message(Some(&key.to_string())), &token).unwrap();
            let mut sequences = Sequences::default();
            let mut running: HashMap<usize, usize> = HashMap::new();
            let mut ran: HashMap<usize, Vec<usize>> = HashMap::new();
            let mut coming = keys.iter().copied().enumerate();
            // However the ends fall, all records come and all end.
            for end in ends.into_iter().chain((0..4).cycle().take(400)) {
                if let Some((record, key)) = coming.next() && let Some(record) = sequences.admit(&sequence(key), record) {
                    prop_assert_eq!(running.insert(key, record), None);
                }
                if let Some(record) = running.remove(&end) {
                    ran.entry(end).or_default().push(record);
                    if let Some(next) = sequences.next(&sequence(end)) {
                        running.insert(end, next);
                    }
                }
            }
            for key in 0..4 {
                let expected: Vec<usize> = (0..keys.len()).filter(|record| keys[*record] == key).collect();
                prop_assert_eq!(ran.remove(&key).unwrap_or_default(), expected);
            }
            prop_assert!(sequences.running.is_empty());
        }
    }
}
