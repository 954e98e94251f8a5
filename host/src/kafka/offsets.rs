//! Which offset of each partition may be stored: a FIFO of tokens, advanced only from its head.

use std::collections::{HashMap, VecDeque};

/// A partition of a topic.
pub(crate) type Partition = (String, i32);

/// One record that was received and is not finished. It is worth nothing once its partition was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    partition: Partition,
    epoch: u64,
    place: u64,
}

/// How much of one partition may be unfinished on a route whose order matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Records from the first unfinished one on: as many are read again after a restart.
    pub(crate) records: usize,
    /// Bytes of records that are held back.
    pub(crate) bytes: usize,
}

/// The tokens of the partitions that are assigned.
#[derive(Debug)]
pub(crate) struct Offsets {
    epoch: u64,
    partitions: HashMap<Partition, Fifo>,
    bounds: Bounds,
    /// A partition became full, or is so no more, since this was last asked.
    flipped: bool,
}

#[derive(Debug)]
struct Fifo {
    /// Of the assignment: a partition that was away and came back has other tokens.
    epoch: u64,
    /// The place of the first entry.
    head: u64,
    /// Offset and whether it is finished, in the order of receipt.
    entries: VecDeque<(i64, bool)>,
    /// What may be stored and has not been taken yet.
    advanced: Option<i64>,
    /// Bytes of records that are held back.
    held: usize,
    full: bool,
}

impl Fifo {
    /// Full at a bound, until a quarter of it: each pause throws prefetched records away. True if that changed.
    fn judge(&mut self, bounds: Bounds) -> bool {
        let Bounds { records, bytes } = bounds;
        let full = match self.full {
            true => self.entries.len() > records / 4 || self.held > bytes / 4,
            false => self.entries.len() >= records || self.held >= bytes,
        };
        std::mem::replace(&mut self.full, full) != full
    }
}

impl Token {
    pub(crate) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Of the assignment under which the record was received.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Offsets {
    /// No partition yet.
    pub(crate) fn new(bounds: Bounds) -> Offsets {
        Offsets { epoch: 0, partitions: HashMap::new(), bounds, flipped: false }
    }

    /// Partitions were assigned in addition.
    pub(crate) fn assign(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        self.epoch += 1;
        for partition in partitions {
            let (epoch, entries) = (self.epoch, VecDeque::new());
            let fifo = Fifo { epoch, head: 0, entries, advanced: None, held: 0, full: false };
            self.partitions.insert(partition, fifo);
        }
    }

    /// Partitions were revoked: their tokens are worth nothing from now on.
    pub(crate) fn revoke<'a>(&mut self, partitions: impl IntoIterator<Item = &'a Partition>) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// The partitions that are assigned.
    pub(crate) fn assigned(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.keys()
    }

    /// A record was received. `None`: its partition is not assigned (any more).
    pub(crate) fn issue(&mut self, partition: &Partition, offset: i64) -> Option<Token> {
        let fifo = self.partitions.get_mut(partition)?;
        let place = fifo.head + fifo.entries.len() as u64;
        fifo.entries.push_back((offset, false));
        self.flipped |= fifo.judge(self.bounds);
        Some(Token { partition: partition.clone(), epoch: fifo.epoch, place })
    }

    /// Whether the token's assignment still holds.
    pub(crate) fn is_current(&self, token: &Token) -> bool {
        self.is_assigned(&token.partition, token.epoch)
    }

    /// Whether that assignment of the partition still holds.
    pub(crate) fn is_assigned(&self, partition: &Partition, epoch: u64) -> bool {
        self.partitions.get(partition).is_some_and(|fifo| fifo.epoch == epoch)
    }

    /// A record of so many bytes is held back; negative: no more.
    pub(crate) fn hold(&mut self, token: &Token, bytes: isize) {
        let bounds = self.bounds;
        let Some(fifo) = self.fifo(token) else { return };
        fifo.held = fifo.held.saturating_add_signed(bytes);
        let flipped = fifo.judge(bounds);
        self.flipped |= flipped;
    }

    /// Whether the partition has as much unfinished as it may, on a route whose order matters.
    pub(crate) fn is_full(&self, partition: &Partition) -> bool {
        self.partitions.get(partition).is_some_and(|fifo| fifo.full)
    }

    /// The first record that is not finished, and how many there are from it on.
    pub(crate) fn unfinished(&self, partition: &Partition) -> Option<(i64, usize)> {
        let entries = &self.partitions.get(partition)?.entries;
        Some((entries.front()?.0, entries.len()))
    }

    /// Whether an answer of [`Offsets::is_full`] has changed since this was last asked.
    pub(crate) fn take_flipped(&mut self) -> bool {
        std::mem::take(&mut self.flipped)
    }

    fn fifo(&mut self, token: &Token) -> Option<&mut Fifo> {
        self.partitions.get_mut(&token.partition).filter(|fifo| fifo.epoch == token.epoch)
    }

    /// The record is dealt with. A token of an older assignment changes nothing.
    pub(crate) fn finish(&mut self, token: &Token) {
        let bounds = self.bounds;
        let Some(fifo) = self.fifo(token) else { return };
        let index = token.place.checked_sub(fifo.head).and_then(|index| usize::try_from(index).ok());
        let Some(entry) = index.and_then(|index| fifo.entries.get_mut(index)) else { return };
        entry.1 = true;
        while let Some(&(offset, true)) = fifo.entries.front() {
            fifo.entries.pop_front();
            fifo.head += 1;
            // Kafka's offset of a group is that of the next record to read.
            fifo.advanced = Some(offset + 1);
        }
        let flipped = fifo.judge(bounds);
        self.flipped |= flipped;
    }

    /// What may be stored since the last call: the next offset to read per partition.
    pub(crate) fn take_advanced(&mut self) -> Vec<(Partition, i64)> {
        let advanced = |(partition, fifo): (&Partition, &mut Fifo)| Some((partition.clone(), fifo.advanced.take()?));
        self.partitions.iter_mut().filter_map(advanced).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn p(partition: i32) -> Partition {
        ("t".into(), partition)
    }

    fn offsets() -> Offsets {
        Offsets::new(Bounds { records: 8, bytes: 100 })
    }

    #[test]
    fn a_partition_is_full_at_a_bound_until_a_quarter_of_it() {
        let mut offsets = offsets();
        offsets.assign([p(0), p(1)]);
        let tokens: Vec<_> = (10..18).map(|offset| offsets.issue(&p(0), offset).unwrap()).collect();
        assert!(offsets.take_flipped() && offsets.is_full(&p(0)) && !offsets.is_full(&p(1)));
        assert_eq!(offsets.unfinished(&p(0)), Some((10, 8)));
        // What is finished behind an unfinished record is read again after a restart: it counts.
        tokens[1..].iter().for_each(|token| offsets.finish(token));
        assert!(offsets.is_full(&p(0)) && !offsets.take_flipped());
        offsets.finish(&tokens[0]);
        assert!(offsets.take_flipped() && !offsets.is_full(&p(0)));

        let token = offsets.issue(&p(1), 0).unwrap();
        offsets.hold(&token, 100);
        assert!(offsets.is_full(&p(1)));
        offsets.hold(&token, -74);
        assert!(offsets.is_full(&p(1)));
        offsets.hold(&token, -1);
        assert!(!offsets.is_full(&p(1)));
    }

    #[test]
    fn an_offset_is_handed_out_only_when_all_before_it_are_finished() {
        let mut offsets = offsets();
        offsets.assign([p(0), p(1)]);
        // A gap in the offsets: control records and compaction leave some.
        let tokens: Vec<_> = [5, 6, 9].iter().map(|offset| offsets.issue(&p(0), *offset).unwrap()).collect();
        let other = offsets.issue(&p(1), 70).unwrap();
        offsets.finish(&tokens[2]);
        offsets.finish(&tokens[1]);
        assert_eq!(offsets.take_advanced(), []);
        offsets.finish(&other);
        assert_eq!(offsets.take_advanced(), [(p(1), 71)]);
        offsets.finish(&tokens[0]);
        assert_eq!(offsets.take_advanced(), [(p(0), 10)]);
        assert_eq!(offsets.take_advanced(), []);
    }

    #[test]
    fn a_token_of_an_older_assignment_is_ignored() {
        let mut offsets = offsets();
        offsets.assign([p(0)]);
        let old = offsets.issue(&p(0), 5).unwrap();
        offsets.revoke([&p(0)]);
        assert!(offsets.issue(&p(0), 6).is_none());
        assert!(!offsets.is_current(&old));
        offsets.finish(&old);
        offsets.assign([p(0)]);
        let new = offsets.issue(&p(0), 5).unwrap();
        offsets.finish(&old);
        assert_eq!(offsets.take_advanced(), []);
        assert!(offsets.is_current(&new) && !offsets.is_current(&old));
        offsets.finish(&new);
        offsets.finish(&new);
        assert_eq!(offsets.take_advanced(), [(p(0), 6)]);
    }

    #[test]
    fn partitions_that_stay_keep_their_tokens() {
        let mut offsets = offsets();
        offsets.assign([p(0)]);
        let kept = offsets.issue(&p(0), 1).unwrap();
        offsets.assign([p(1)]);
        offsets.finish(&kept);
        assert_eq!(offsets.take_advanced(), [(p(0), 2)]);
        assert_eq!(offsets.assigned().count(), 2);
    }

    proptest! {
        #[test]
        fn in_whatever_order_records_finish_none_is_skipped(order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut offsets = offsets();
            offsets.assign([p(0)]);
            let tokens: Vec<_> = (0..40).map(|offset| offsets.issue(&p(0), offset).unwrap()).collect();
            let mut finished = [false; 40];
            let mut stored = 0;
            for index in order {
                offsets.finish(&tokens[index]);
                finished[index] = true;
                for (_, next) in offsets.take_advanced() {
                    prop_assert!(next > stored);
                    stored = next;
                }
                let contiguous = finished.iter().take_while(|done| **done).count() as i64;
                prop_assert_eq!(stored, contiguous);
            }
        }
    }
}
