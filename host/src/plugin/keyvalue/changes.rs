//! What one call has read and written in buckets so far: nothing of it has taken effect yet.

use super::allowed::Bucket;
use crate::plugin::limits::size;
use pawl_store::keyvalue::{self as store, Apply, LARGEST_APPLY, Once, Value, check_key, check_value, weight};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The buckets of one call.
#[derive(Debug, Default)]
pub(in crate::plugin) struct Changes {
    /// By the name in the store.
    buckets: BTreeMap<String, Touched>,
    /// As [`store::Bucket::weight`] counts it.
    weight: usize,
    /// How often something was written.
    writes: u64,
    /// Whether a bucket was asked for that the route does not allow.
    refused: bool,
}

#[derive(Debug)]
struct Touched {
    bucket: Arc<Bucket>,
    /// The version that each key had when it was first read.
    read: BTreeMap<String, i64>,
    write: BTreeMap<String, Option<Value>>,
    /// The number of the last write of each key.
    written: BTreeMap<String, u64>,
}

/// What a key holds as far as this call alone knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    Value(Vec<u8>),
    Nothing,
    /// The store must be asked.
    NotYet,
}

impl Changes {
    /// Whether anything was read or written.
    pub(in crate::plugin) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether anything was written.
    pub(in crate::plugin) fn wrote(&self) -> bool {
        self.writes > 0
    }

    /// A bucket is refused. Whether it is the first: of the others nothing new would be told.
    pub(super) fn is_first_refusal(&mut self) -> bool {
        !std::mem::replace(&mut self.refused, true)
    }

    /// Another one after each time the call has written to a key.
    pub(in crate::plugin) fn last_write(&self, bucket: &Bucket, key: &str) -> u64 {
        let number = self.buckets.get(&bucket.stored).and_then(|touched| touched.written.get(key));
        number.copied().unwrap_or_default()
    }

    /// What the call itself has written under a key.
    pub(super) fn known(&self, bucket: &Bucket, key: &str) -> Known {
        match self.buckets.get(&bucket.stored).and_then(|touched| touched.write.get(key)) {
            Some(Some(value)) => Known::Value(value.0.clone()),
            Some(None) => Known::Nothing,
            None => Known::NotYet,
        }
    }

    /// The keys that the call has set in a bucket, and those that it has removed.
    pub(super) fn written(&self, bucket: &Bucket) -> (Vec<String>, Vec<String>) {
        let written = self.buckets.get(&bucket.stored).into_iter().flat_map(|touched| &touched.write);
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        for (key, value) in written {
            if value.is_some() { &mut set } else { &mut removed }.push(key.clone());
        }
        (set, removed)
    }

    /// Notes what was read; what counts is the version of the first time.
    pub(super) fn read(&mut self, bucket: &Arc<Bucket>, key: &str, version: i64) -> Result<(), String> {
        if self.buckets.get(&bucket.stored).is_some_and(|touched| touched.read.contains_key(key)) {
            return Ok(());
        }
        self.grow(weight(key, None), 0)?;
        self.touch(bucket).read.insert(key.to_owned(), version);
        Ok(())
    }

    /// Notes what is to be written. An error leaves all as it was.
    pub(super) fn write(&mut self, bucket: &Arc<Bucket>, key: String, value: Option<Vec<u8>>) -> Result<(), String> {
        let value = value.map(Value);
        check_key(&key)?;
        check_value(&key, value.as_ref())?;
        let before = self.buckets.get(&bucket.stored).and_then(|touched| touched.write.get(&key));
        let before = before.map_or(0, |before| weight(&key, before.as_ref()));
        self.grow(weight(&key, value.as_ref()), before)?;
        self.writes += 1;
        let number = self.writes;
        let touched = self.touch(bucket);
        touched.written.insert(key.clone(), number);
        touched.write.insert(key, value);
        Ok(())
    }

    fn grow(&mut self, by: usize, instead_of: usize) -> Result<(), String> {
        let weight = (self.weight - instead_of).saturating_add(by);
        if weight > LARGEST_APPLY {
            return Err(format!(
                "a step may read and write {} of keys and values at most: do the rest in the next step",
                size(LARGEST_APPLY)
            ));
        }
        self.weight = weight;
        Ok(())
    }

    fn touch(&mut self, bucket: &Arc<Bucket>) -> &mut Touched {
        self.buckets.entry(bucket.stored.clone()).or_insert_with(|| Touched {
            bucket: bucket.clone(),
            read: BTreeMap::new(),
            write: BTreeMap::new(),
            written: BTreeMap::new(),
        })
    }

    /// The request that makes it take effect. Without a write what was read does not matter.
    pub(in crate::plugin) fn into_request(self, once: Once) -> Apply {
        let bucket = |touched: Touched| store::Bucket {
            bucket: touched.bucket.stored.clone(),
            read: touched.read,
            write: touched.write,
            most_keys: Some(touched.bucket.keys),
            most_bytes: Some(touched.bucket.bytes),
        };
        let buckets = if self.wrote() { self.buckets.into_values().map(bucket).collect() } else { Vec::new() };
        Apply { once: Some(once), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_store::keyvalue::LARGEST_VALUE;
    use proptest::prelude::*;

    fn bucket(name: &str) -> Arc<Bucket> {
        Arc::new(Bucket { name: name.to_owned(), stored: format!("route/r/{name}"), keys: 1, bytes: 2 })
    }

    fn once() -> Once {
        Once { key: "k".to_owned(), owner: "o".to_owned(), outcome: "{}".to_owned() }
    }

    #[test]
    fn a_call_sees_what_it_wrote_and_asks_for_what_it_first_read() {
        let (mut changes, bucket) = (Changes::default(), bucket("b"));
        changes.read(&bucket, "a", 3).unwrap();
        changes.write(&bucket, "a".to_owned(), Some(b"1".to_vec())).unwrap();
        changes.write(&bucket, "gone".to_owned(), None).unwrap();
        changes.read(&bucket, "a", 4).unwrap();
        assert_eq!(changes.known(&bucket, "a"), Known::Value(b"1".to_vec()));
        assert_eq!((changes.known(&bucket, "gone"), changes.known(&bucket, "b")), (Known::Nothing, Known::NotYet));
        assert_eq!(changes.written(&bucket), (vec!["a".to_owned()], vec!["gone".to_owned()]));
        let apply = changes.into_request(once());
        assert_eq!((apply.buckets[0].read["a"], apply.buckets[0].most_keys), (3, Some(1)));
    }

    #[test]
    fn what_was_only_read_is_not_asked_for() {
        let mut changes = Changes::default();
        changes.read(&bucket("b"), "a", 3).unwrap();
        assert!(!changes.is_empty() && !changes.wrote());
        assert!(changes.into_request(once()).buckets.is_empty());
    }

    #[test]
    fn one_step_holds_no_more_than_a_request() {
        let (mut changes, bucket) = (Changes::default(), bucket("b"));
        let mib = vec![0; LARGEST_VALUE];
        changes.write(&bucket, "a".to_owned(), Some(mib.clone())).unwrap();
        assert!(changes.write(&bucket, "b".to_owned(), Some(mib.clone())).unwrap_err().contains("1.5 MiB"));
        changes.write(&bucket, "a".to_owned(), Some(mib.clone())).unwrap();
        changes.write(&bucket, "a".to_owned(), Some(b"less".to_vec())).unwrap();
        changes.write(&bucket, "b".to_owned(), Some(mib)).unwrap();
        assert!(
            changes
                .write(&bucket, "c".to_owned(), Some(vec![0; LARGEST_VALUE + 1]))
                .unwrap_err()
                .contains("1048577 bytes")
        );
        assert!(changes.write(&bucket, "k".repeat(513), None).unwrap_err().contains("513 bytes"));
        assert!(changes.write(&bucket, String::new(), None).is_err());
    }

    proptest! {
        /// The weight that is kept is the weight that the store counts.
        #[test]
        fn the_weight_is_the_store_s(ops in prop::collection::vec(("[a-d]", 0..2u8, prop::option::of(0..9usize)), 0..30)) {
            let (mut changes, buckets) = (Changes::default(), [bucket("x"), bucket("y")]);
            for (key, which, value) in ops {
                let bucket = &buckets[usize::from(which)];
                match value {
                    Some(8) => changes.read(bucket, &key, 1).unwrap(),
                    value => changes.write(bucket, key, value.map(|length| vec![0; length])).unwrap(),
                }
            }
            let (weight, wrote) = (changes.weight, changes.wrote());
            let counted: usize = changes.into_request(once()).buckets.iter().map(store::Bucket::weight).sum();
            prop_assert!(weight == counted || !wrote);
        }
    }
}
