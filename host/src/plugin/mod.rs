//! The plugin engine: components are loaded, checked, swapped and called here.

mod bindings;
mod cache;
mod capabilities;
pub mod contract;
mod digest;
mod engine;
mod error;
mod fit;
mod folder;
mod gate;
mod grants;
mod handler;
mod keyvalue;
mod lanes;
mod least_recent;
mod limits;
mod log_budget;
mod log_line;
mod oci;
mod output;
mod registry;
mod reload;
mod shape;
mod signature;
mod sql;
mod ticker;
mod version;
mod versions;
mod watcher;
mod whole_file;

pub use digest::Digest;
pub use engine::{Engine, EngineSettings};
pub use error::{EngineError, GrantError, LoadError, RegistryError};
pub use grants::{Grants, Routes};
pub use keyvalue::{Buckets, BucketsError};
pub use oci::{Access, Artifact, OciError, Repository, Wanted};
pub use registry::{Registry, Sources, Status};
pub use signature::TrustedKeys;
pub use sql::Databases;
pub use version::{Call, Reply, Version};
pub use versions::{Command, CommandError, Counts, Keeping, Report, RowOfVersion, ServedRoute};
pub use watcher::Watch;

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod keyvalue_testing;
#[cfg(test)]
mod keyvalue_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod released_tests;
#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod signature_tests;
#[cfg(test)]
mod sql_access_tests;
#[cfg(test)]
mod sql_effects_tests;
#[cfg(test)]
mod sql_testing;
#[cfg(test)]
mod sql_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod versions_kept_tests;
#[cfg(test)]
mod versions_testing;
#[cfg(test)]
mod versions_tests;
#[cfg(test)]
mod watch_tests;
