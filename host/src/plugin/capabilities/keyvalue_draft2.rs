//! `wasi:keyvalue@0.2.0-draft2`: the same buckets under the next draft of the interface, which has handles for compare-and-swap.

use super::Capability;
use super::keyvalue::{GRANT, Handle};
use crate::plugin::bindings::keyvalue as draft;
use crate::plugin::bindings::keyvalue_draft2::{atomics, batch, store};
use crate::plugin::keyvalue::Bucket;
use atomics::CasError;
use std::sync::Arc;
use store::{Error, KeyResponse};
use wasmtime::component::{HasSelf, Resource};

type Result<T> = std::result::Result<T, Error>;

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &[
        "wasi:keyvalue/atomics@0.2.0-draft2",
        "wasi:keyvalue/batch@0.2.0-draft2",
        "wasi:keyvalue/store@0.2.0-draft2",
    ],
    link: |linker| {
        store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
        atomics::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
        batch::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
    },
    grant: Some(GRANT),
};

/// A key, and what the call had written to it when the handle was made. What others write shows when the step takes effect.
pub struct Cas {
    bucket: Arc<Bucket>,
    key: String,
    last_write: u64,
}

impl From<draft::store::Error> for Error {
    fn from(error: draft::store::Error) -> Error {
        match error {
            draft::store::Error::NoSuchStore => Error::NoSuchStore,
            draft::store::Error::AccessDenied => Error::AccessDenied,
            draft::store::Error::Other(text) => Error::Other(text),
        }
    }
}

fn no_handle(e: wasmtime::component::ResourceTableError) -> Error {
    Error::Other(e.to_string())
}

impl super::State {
    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<std::result::Result<(), Resource<Cas>>> {
        let Cas { bucket, key, last_write } = self.wasi.table().delete(cas).map_err(no_handle)?;
        let now = self.effects.keyvalue.last_write(&bucket, &key);
        if now != last_write {
            let handle = self.wasi.table().push(Cas { bucket, key, last_write: now }).map_err(no_handle)?;
            return Ok(Err(handle));
        }
        self.effects.write_values(&bucket, vec![(key, Some(value))]).await?;
        Ok(Ok(()))
    }
}

// What is the same in both drafts is done by the first.
impl store::Host for super::State {
    async fn open(&mut self, identifier: String) -> Result<Resource<Handle>> {
        Ok(draft::store::Host::open(self, identifier).await?)
    }
}

impl store::HostBucket for super::State {
    async fn get(&mut self, handle: Resource<Handle>, key: String) -> Result<Option<Vec<u8>>> {
        Ok(draft::store::HostBucket::get(self, handle, key).await?)
    }

    async fn set(&mut self, handle: Resource<Handle>, key: String, value: Vec<u8>) -> Result<()> {
        Ok(draft::store::HostBucket::set(self, handle, key, value).await?)
    }

    async fn delete(&mut self, handle: Resource<Handle>, key: String) -> Result<()> {
        Ok(draft::store::HostBucket::delete(self, handle, key).await?)
    }

    async fn exists(&mut self, handle: Resource<Handle>, key: String) -> Result<bool> {
        Ok(draft::store::HostBucket::exists(self, handle, key).await?)
    }

    async fn list_keys(&mut self, handle: Resource<Handle>, cursor: Option<String>) -> Result<KeyResponse> {
        let cursor = cursor.map(|cursor| {
            let unknown = || Error::Other(format!("`{}` is no cursor of a list", cursor.escape_debug()));
            cursor.parse().map_err(|_| unknown())
        });
        let page = draft::store::HostBucket::list_keys(self, handle, cursor.transpose()?).await?;
        Ok(KeyResponse { keys: page.keys, cursor: page.cursor.map(|cursor| cursor.to_string()) })
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.wasi.table().delete(handle)?;
        Ok(())
    }
}

impl atomics::Host for super::State {
    async fn increment(&mut self, handle: Resource<Handle>, key: String, delta: i64) -> Result<i64> {
        let bucket = self.bucket(&handle)?;
        Ok(self.effects.add(&bucket, key, delta).await?)
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> std::result::Result<(), CasError> {
        match super::State::swap(self, cas, value).await {
            Ok(swapped) => swapped.map_err(CasError::CasFailed),
            Err(e) => Err(CasError::StoreError(e)),
        }
    }
}

impl atomics::HostCas for super::State {
    async fn new(&mut self, handle: Resource<Handle>, key: String) -> Result<Resource<Cas>> {
        let bucket = self.bucket(&handle)?;
        // From now on the step takes effect only if nobody else changes the key.
        self.effects.value_exists(&bucket, key.clone()).await?;
        let last_write = self.effects.keyvalue.last_write(&bucket, &key);
        self.wasi.table().push(Cas { bucket, key, last_write }).map_err(no_handle)
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>> {
        let Cas { bucket, key, .. } = self.wasi.table().get(&cas).map_err(no_handle)?;
        let (bucket, key) = (bucket.clone(), key.clone());
        Ok(self.effects.get_value(&bucket, key).await?)
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.wasi.table().delete(cas)?;
        Ok(())
    }
}

impl batch::Host for super::State {
    async fn get_many(
        &mut self,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        Ok(draft::batch::Host::get_many(self, handle, keys).await?)
    }

    async fn set_many(&mut self, handle: Resource<Handle>, values: Vec<(String, Vec<u8>)>) -> Result<()> {
        Ok(draft::batch::Host::set_many(self, handle, values).await?)
    }

    async fn delete_many(&mut self, handle: Resource<Handle>, keys: Vec<String>) -> Result<()> {
        Ok(draft::batch::Host::delete_many(self, handle, keys).await?)
    }
}
