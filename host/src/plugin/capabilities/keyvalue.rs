//! `wasi:keyvalue@0.2.0-draft`: the buckets that the route allows, kept in the durable store.

use super::{Capability, Grant};
use crate::plugin::bindings::keyvalue::{atomics, batch, store};
use crate::plugin::keyvalue::Bucket;
use std::sync::Arc;
use store::{Error, KeyResponse};
use wasmtime::component::{HasSelf, Resource};

type Result<T> = std::result::Result<T, Error>;

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &[
        "wasi:keyvalue/atomics@0.2.0-draft",
        "wasi:keyvalue/batch@0.2.0-draft",
        "wasi:keyvalue/store@0.2.0-draft",
    ],
    link: |linker| {
        store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
        atomics::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
        batch::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
    },
    grant: Some(GRANT),
};

/// For each version of the interface.
pub(super) const GRANT: Grant =
    Grant { is_given: |allow| !allow.keyvalue.is_empty(), line: "allow = { keyvalue = [\"BUCKET\"] }" };

/// A plugin's handle of a bucket.
pub struct Handle(Arc<Bucket>);

impl super::State {
    pub(super) fn bucket(&mut self, handle: &Resource<Handle>) -> Result<Arc<Bucket>> {
        let Handle(bucket) = self.wasi.table().get(handle).map_err(|e| Error::Other(e.to_string()))?;
        Ok(bucket.clone())
    }
}

impl store::Host for super::State {
    async fn open(&mut self, identifier: String) -> Result<Resource<Handle>> {
        let bucket = self.effects.open_bucket(&identifier)?;
        let handle = self.wasi.table().push(Handle(bucket));
        handle.map_err(|e| Error::Other(format!("too many handles are open: {e}")))
    }
}

impl store::HostBucket for super::State {
    async fn get(&mut self, handle: Resource<Handle>, key: String) -> Result<Option<Vec<u8>>> {
        let bucket = self.bucket(&handle)?;
        self.effects.get_value(&bucket, key).await
    }

    async fn set(&mut self, handle: Resource<Handle>, key: String, value: Vec<u8>) -> Result<()> {
        let bucket = self.bucket(&handle)?;
        self.effects.write_values(&bucket, vec![(key, Some(value))]).await
    }

    async fn delete(&mut self, handle: Resource<Handle>, key: String) -> Result<()> {
        let bucket = self.bucket(&handle)?;
        self.effects.write_values(&bucket, vec![(key, None)]).await
    }

    async fn exists(&mut self, handle: Resource<Handle>, key: String) -> Result<bool> {
        let bucket = self.bucket(&handle)?;
        self.effects.value_exists(&bucket, key).await
    }

    async fn list_keys(&mut self, handle: Resource<Handle>, cursor: Option<u64>) -> Result<KeyResponse> {
        let bucket = self.bucket(&handle)?;
        self.effects.list_values(&bucket, cursor).await
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.wasi.table().delete(handle)?;
        Ok(())
    }
}

impl atomics::Host for super::State {
    async fn increment(&mut self, handle: Resource<Handle>, key: String, delta: u64) -> Result<u64> {
        let bucket = self.bucket(&handle)?;
        self.effects.add(&bucket, key, delta).await
    }
}

impl batch::Host for super::State {
    async fn get_many(
        &mut self,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        let bucket = self.bucket(&handle)?;
        let values = self.effects.get_values(&bucket, keys.clone()).await?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| Some((key, value?))).collect())
    }

    async fn set_many(&mut self, handle: Resource<Handle>, values: Vec<(String, Vec<u8>)>) -> Result<()> {
        let bucket = self.bucket(&handle)?;
        let values = values.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.effects.write_values(&bucket, values).await
    }

    async fn delete_many(&mut self, handle: Resource<Handle>, keys: Vec<String>) -> Result<()> {
        let bucket = self.bucket(&handle)?;
        self.effects.write_values(&bucket, keys.into_iter().map(|key| (key, None)).collect()).await
    }
}
