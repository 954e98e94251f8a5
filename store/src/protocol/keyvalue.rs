//! Keys and values in buckets: requests and answers of the kinds `pawl.kv.*`, which are this store's own, as both ends have them.

use super::parse::Fault;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The longest name of a bucket, in bytes.
pub const LONGEST_BUCKET: usize = 512;
/// The longest key, in bytes. The shortest has one.
pub const LONGEST_KEY: usize = 512;
/// The largest value, in bytes.
pub const LARGEST_VALUE: usize = 1 << 20;
/// What a key counts for in [`Bucket::weight`] besides its bytes.
pub const KEY_OVERHEAD: usize = 32;
/// How much one request may read and write, as [`Bucket::weight`] counts it: in base64 and with an outcome it fits in a request of 4 MiB.
pub const LARGEST_APPLY: usize = 3 << 19;
/// Keys that one request may ask for.
pub const MOST_KEYS: usize = 4096;
/// Keys on a page of a list.
pub const PAGE: u32 = 1000;

/// Bytes that are base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Value(pub Vec<u8>);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Value).map_err(|e| serde::de::Error::custom(format!("no base64: {e}")))
    }
}

/// `pawl.kv.get`: asks for keys of one bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct Get {
    /// One that nothing was written to is empty.
    pub bucket: String,
    /// At most [`MOST_KEYS`].
    pub keys: Vec<String>,
    /// Whether the values are asked for too, or only the versions.
    #[serde(default = "yes")]
    pub values: bool,
}

fn yes() -> bool {
    true
}

/// The answer to [`Get`], all as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    /// In the order of the keys. Where the values are large there are fewer than were asked for, but one at least: ask again for the rest.
    pub entries: Vec<Entry>,
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Another one after each write; 0 where there is nothing.
    pub version: i64,
    /// Absent too where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// `pawl.kv.list`: asks for a page of a bucket's keys, in the order in which they were created.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct List {
    /// One that nothing was written to is empty.
    pub bucket: String,
    /// Of the page before.
    #[serde(default)]
    pub cursor: Option<u64>,
    /// Keys on the page, [`PAGE`] at most and if nothing is said.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// The answer to [`List`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The keys.
    pub keys: Vec<String>,
    /// Absent on the last page.
    pub cursor: Option<u64>,
}

/// `pawl.kv.outcome`: asks whether something that is done once has been done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct FindOutcome {
    /// [`Once::key`].
    pub key: String,
}

/// The answer to [`FindOutcome`] and to [`Apply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The outcome of whoever was first. Absent in the answer to [`Apply`]: this was the first, and has taken effect just now.
    pub outcome: Option<String>,
}

/// `pawl.kv.apply`: changes buckets, all of it or nothing. What it answers besides [`Done`]: 409 if something was read that is no
/// longer so, 422 if a bucket would hold more than it may, 404 if the owner has ended or is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct Apply {
    /// Makes that it takes effect once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
    /// Each bucket once.
    pub buckets: Vec<Bucket>,
}

/// Of several requests with the same key the first takes effect, and is known by its outcome as long as its owner is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct Once {
    /// What is done.
    pub key: String,
    /// A pending root promise. The outcome is removed together with it, and nothing takes effect after its end.
    pub owner: String,
    /// Any text.
    pub outcome: String,
}

/// What was read of a bucket, and what is written to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct Bucket {
    /// Its name.
    pub bucket: String,
    /// The versions of what was read: each must still be so.
    #[serde(default)]
    pub read: BTreeMap<String, i64>,
    /// The new values. Null: the key is removed.
    #[serde(default)]
    pub write: BTreeMap<String, Option<Value>>,
    /// How many keys it may hold then.
    #[serde(default)]
    pub most_keys: Option<u64>,
    /// How many bytes of keys and values.
    #[serde(default)]
    pub most_bytes: Option<u64>,
}

impl Bucket {
    /// What it counts for in [`LARGEST_APPLY`].
    pub fn weight(&self) -> usize {
        let read = self.read.keys().map(|key| weight(key, None));
        let write = self.write.iter().map(|(key, value)| weight(key, value.as_ref()));
        read.chain(write).fold(0, usize::saturating_add)
    }
}

impl Get {
    pub(super) fn check(&self) -> Result<(), Fault> {
        check_bucket(&self.bucket)?;
        if self.keys.len() > MOST_KEYS {
            return Err(format!("`keys` has {}; {MOST_KEYS} at most are allowed", self.keys.len()));
        }
        self.keys.iter().try_for_each(|key| check_key(key))
    }
}

impl List {
    pub(super) fn check(&self) -> Result<(), Fault> {
        check_bucket(&self.bucket)
    }
}

impl Apply {
    pub(super) fn check(&self) -> Result<(), Fault> {
        for (index, bucket) in self.buckets.iter().enumerate() {
            check_bucket(&bucket.bucket)?;
            if self.buckets[..index].iter().any(|other| other.bucket == bucket.bucket) {
                return Err(format!("`buckets` names `{}` twice", bucket.bucket));
            }
            bucket.read.keys().chain(bucket.write.keys()).try_for_each(|key| check_key(key))?;
            for (key, value) in &bucket.write {
                check_value(key, value.as_ref())?;
            }
        }
        let weight = self.buckets.iter().map(Bucket::weight).fold(0, usize::saturating_add);
        if weight > LARGEST_APPLY {
            return Err(format!("`buckets` reads and writes {weight} bytes; {LARGEST_APPLY} at most are allowed"));
        }
        match &self.once {
            Some(once) if once.key.is_empty() => Err("`once.key` is empty".to_owned()),
            _ => Ok(()),
        }
    }
}

fn check_bucket(name: &str) -> Result<(), Fault> {
    check_length("bucket", name, LONGEST_BUCKET)
}

/// What one key counts for in [`Bucket::weight`], with the value that is written to it.
pub fn weight(key: &str, value: Option<&Value>) -> usize {
    KEY_OVERHEAD + key.len() + value.map_or(0, |value| value.0.len())
}

/// Whether a key may be one, or why not.
pub fn check_key(key: &str) -> Result<(), String> {
    check_length("key", key, LONGEST_KEY)
}

/// Whether a value may be written to a key, or why not.
pub fn check_value(key: &str, value: Option<&Value>) -> Result<(), String> {
    match value.map_or(0, |value| value.0.len()) {
        bytes if bytes > LARGEST_VALUE => {
            Err(format!("the value of `{key}` has {bytes} bytes; {LARGEST_VALUE} at most are allowed"))
        }
        _ => Ok(()),
    }
}

fn check_length(what: &str, text: &str, longest: usize) -> Result<(), Fault> {
    match text.len() {
        length if (1..=longest).contains(&length) => Ok(()),
        length => Err(format!("a {what} has {length} bytes; 1 to {longest} are allowed")),
    }
}
