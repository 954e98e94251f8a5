//! Plugins in OCI registries: pushed, pulled, and brought for the routes that name one.

mod access;
mod artifact;
mod blobs;
mod error;
mod puller;
mod repository;

pub use access::Access;
pub use error::OciError;
pub use puller::Wanted;
pub use repository::{Artifact, Repository};

pub(super) use puller::Puller;

#[cfg(test)]
mod odd_registry_tests;
