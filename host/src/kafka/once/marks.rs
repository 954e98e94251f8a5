//! Lower bounds of the ends of output partitions: from there on an event that is yet to be produced will be found.
//!
//! They are cached. An old one is still a lower bound, it only makes a search longer.

use super::identity::{Live, blocking};
use crate::workflow::emit::EmitError;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::Producer as _;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Older ones are asked for again.
const FRESH: Duration = Duration::from_secs(60);
/// How long Kafka may take to tell the end of one partition.
const REQUEST: Duration = Duration::from_secs(10);

/// The bounds of all topics that events went to.
#[derive(Default)]
pub struct Marks {
    topics: Mutex<HashMap<String, Known>>,
}

struct Known {
    asked: Instant,
    ends: Vec<i64>,
}

impl Marks {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of each partition of a topic, in their order.
    pub async fn of(&self, topic: &str, live: &Live) -> Result<Vec<i64>, EmitError> {
        if let Some(known) = self.topics().get(topic).filter(|known| known.asked.elapsed() < FRESH) {
            return Ok(known.ends.clone());
        }
        let (asked, name) = (Instant::now(), topic.to_owned());
        let ask = move |producer: &crate::kafka::shelf::Producer| {
            let metadata = producer.client().fetch_metadata(Some(&name), REQUEST)?;
            let topics = metadata.topics().iter().filter(|found| found.name() == name);
            let mut partitions: Vec<i32> = topics.flat_map(|topic| topic.partitions()).map(|p| p.id()).collect();
            partitions.sort_unstable();
            let ends = partitions.into_iter();
            ends.map(|partition| producer.client().fetch_watermarks(&name, partition, REQUEST).map(|(_, end)| end))
                .collect::<Result<Vec<i64>, ClientError>>()
        };
        let ends = blocking(live.shelf(), ask).await.map_err(|e| EmitError::Unavailable { reason: e.to_string() })?;
        self.topics().insert(topic.to_owned(), Known { asked, ends: ends.clone() });
        Ok(ends)
    }

    /// A record was appended: what comes later in that partition comes behind it.
    pub fn appended(&self, topic: &str, partition: i32, offset: i64) {
        let mut topics = self.topics();
        let end = topics.get_mut(topic).and_then(|known| known.ends.get_mut(usize::try_from(partition).ok()?));
        if let Some(end) = end {
            *end = (*end).max(offset + 1);
        }
    }
}
