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
mod lanes;
mod limits;
mod log_budget;
mod output;
mod registry;
mod reload;
mod shape;
mod sql;
mod ticker;
mod version;
mod versions;
mod watcher;

pub use digest::Digest;
pub use engine::{Engine, EngineSettings};
pub use error::{EngineError, GrantError, LoadError, RegistryError};
pub use grants::{Grants, Routes};
pub use registry::{Registry, Status};
pub use sql::Databases;
pub use version::{Call, Reply, Version};
pub use versions::{Command, CommandError, Counts, Keeping, Report, RowOfVersion, ServedRoute};
pub use watcher::Watch;

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod load_tests;
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
mod versions_tests;
#[cfg(test)]
mod watch_tests;
