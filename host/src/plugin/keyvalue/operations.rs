//! What a plugin asks of its buckets, answered from what its call has written, and else from the store.

use super::allowed::Bucket;
use super::changes::Known;
use crate::config::BucketAllow;
use crate::plugin::bindings::keyvalue::store::{Error, KeyResponse};
use crate::plugin::limits::size;
use crate::plugin::output::Source;
use crate::plugin::sql::Effects;
use pawl_store::keyvalue::{Entry, Get, List, MOST_KEYS, check_key};
use std::collections::BTreeSet;
use std::sync::Arc;

type Result<T> = std::result::Result<T, Error>;

impl Effects {
    /// A bucket, if the route allows it.
    pub(in crate::plugin) fn open_bucket(&mut self, name: &str) -> Result<Arc<Bucket>> {
        if let Some(bucket) = self.grants.keyvalue.bucket(name) {
            return Ok(bucket.clone());
        }
        if !self.keyvalue.is_first_refusal() {
            return Err(Error::AccessDenied);
        }
        let Source { route, workflow, plugin, step } = self.source.as_ref();
        let short: String = name.chars().take(BucketAllow::LONGEST).collect();
        let (route, plugin, name) = (route.as_ref(), plugin.as_ref(), short.escape_debug());
        tracing::warn!(
            target: "pawl::keyvalue",
            route,
            workflow,
            plugin,
            step,
            "route `{route}` does not allow the bucket `{name}`; add \"{name}\" to `allow.keyvalue` of route `{route}`"
        );
        Err(Error::AccessDenied)
    }

    pub(in crate::plugin) async fn get_value(&mut self, bucket: &Arc<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
        Ok(self.get_values(bucket, vec![key]).await?.pop().flatten())
    }

    /// In the order of the keys. An answer is bounded like one over HTTP.
    pub(in crate::plugin) async fn get_values(
        &mut self,
        bucket: &Arc<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let most = self.grants.limits.response;
        let within = |bytes: usize| match bytes > most {
            true => Err(Error::Other(format!(
                "the values have more than {}: ask for fewer, or raise `limits.response` of the route in pawl.toml",
                size(most)
            ))),
            false => Ok(()),
        };
        let mut values = Vec::with_capacity(keys.len().min(MOST_KEYS));
        let (mut missing, mut bytes) = (Vec::new(), 0);
        for (at, key) in keys.into_iter().enumerate() {
            check_key(&key).map_err(Error::Other)?;
            match self.keyvalue.known(bucket, &key) {
                Known::Value(value) => {
                    bytes += value.len();
                    // At once: what the call has written itself can be asked for any number of times.
                    within(bytes)?;
                    values.push(Some(value));
                }
                Known::Nothing => values.push(None),
                Known::NotYet => {
                    missing.push((at, key));
                    values.push(None);
                }
            }
        }
        while !missing.is_empty() {
            let asked: Vec<String> = missing.iter().take(MOST_KEYS).map(|(_, key)| key.clone()).collect();
            let entries = self.ask(bucket, asked, true).await?;
            if entries.is_empty() {
                return Err(Error::Other("the store answers with nothing".to_owned()));
            }
            let answered = entries.len().min(missing.len());
            for ((at, key), entry) in missing.drain(..answered).zip(entries) {
                self.keyvalue.read(bucket, &key, entry.version).map_err(Error::Other)?;
                let value = entry.value.map(|value| value.0);
                bytes += value.as_ref().map_or(0, Vec::len);
                values[at] = value;
            }
            within(bytes)?;
        }
        Ok(values)
    }

    pub(in crate::plugin) async fn value_exists(&mut self, bucket: &Arc<Bucket>, key: String) -> Result<bool> {
        check_key(&key).map_err(Error::Other)?;
        match self.keyvalue.known(bucket, &key) {
            Known::Value(_) => return Ok(true),
            Known::Nothing => return Ok(false),
            Known::NotYet => {}
        }
        let entries = self.ask(bucket, vec![key.clone()], false).await?;
        let version = entries.first().map_or(0, |entry| entry.version);
        self.keyvalue.read(bucket, &key, version).map_err(Error::Other)?;
        Ok(version != 0)
    }

    /// Values to be set, and keys without one to be removed, in their order.
    pub(in crate::plugin) async fn write_values(
        &mut self,
        bucket: &Arc<Bucket>,
        values: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.refuse_bucket().await.map_err(Error::Other)?;
        values.into_iter().try_for_each(|(key, value)| self.keyvalue.write(bucket, key, value)).map_err(Error::Other)
    }

    /// Adds to a number, which is kept as decimal digits and stays in a range.
    pub(in crate::plugin) async fn add<N>(&mut self, bucket: &Arc<Bucket>, key: String, delta: N) -> Result<N>
    where
        N: Into<i128> + TryFrom<i128> + Copy,
    {
        let value = self.get_value(bucket, key.clone()).await?;
        let number = match &value {
            None => Some(0),
            Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.parse::<i128>().ok()),
        };
        // What does not fit into the type of the interface is no number of it.
        let number = number.filter(|number| N::try_from(*number).is_ok()).ok_or_else(|| {
            Error::Other(format!("`{key}` in bucket `{}` is no number in decimal digits", bucket.name))
        })?;
        let delta: i128 = delta.into();
        let sum = N::try_from(number + delta).map_err(|_| {
            Error::Other(format!(
                "`{key}` in bucket `{}` is {number}: with {delta} more it is out of range",
                bucket.name
            ))
        })?;
        let digits: i128 = sum.into();
        self.write_values(bucket, vec![(key, Some(digits.to_string().into_bytes()))]).await?;
        Ok(sum)
    }

    /// A page of the store's, without what the call has removed; on the last one also what it has added.
    pub(in crate::plugin) async fn list_values(
        &mut self,
        bucket: &Arc<Bucket>,
        cursor: Option<u64>,
    ) -> Result<KeyResponse> {
        let list = List { bucket: bucket.stored.clone(), cursor, limit: None };
        let listed = self.grants.keyvalue.list(list, &self.waits).await;
        let mut page = listed.map_err(|e| self.failed(bucket, &e))?;
        let (set, removed) = self.keyvalue.written(bucket);
        let removed: BTreeSet<String> = removed.into_iter().collect();
        page.keys.retain(|key| !removed.contains(key));
        if page.cursor.is_none() {
            for keys in set.chunks(MOST_KEYS) {
                let entries = self.ask(bucket, keys.to_vec(), false).await?;
                let new = keys.iter().zip(entries).filter(|(_, entry)| entry.version == 0);
                page.keys.extend(new.map(|(key, _)| key.clone()));
            }
        }
        Ok(KeyResponse { keys: page.keys, cursor: page.cursor })
    }

    async fn ask(&mut self, bucket: &Arc<Bucket>, keys: Vec<String>, values: bool) -> Result<Vec<Entry>> {
        let get = Get { bucket: bucket.stored.clone(), keys, values };
        let got = self.grants.keyvalue.get(get, &self.waits).await;
        Ok(got.map_err(|e| self.failed(bucket, &e))?.entries)
    }

    fn failed(&self, bucket: &Bucket, error: &super::BucketsError) -> Error {
        let Source { route, workflow, plugin, step } = self.source.as_ref();
        let (route, plugin, bucket) = (route.as_ref(), plugin.as_ref(), &bucket.name);
        tracing::warn!(target: "pawl::keyvalue", route, workflow, plugin, step, bucket, "keys were not read: {error}");
        Error::Other(error.to_string())
    }
}
