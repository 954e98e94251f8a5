//! The connection to Resonate: a server or the embedded store, and what stands between it and the SDK.
//!
//! From the SDK outward: [`admission`] bounds the executions, [`patience`] retries what an execution can't do without, then comes
//! the back end: the store's own network or [`remote`].

pub mod admission;
pub mod backoff;
pub mod client;
mod connect;
mod endings;
mod envelope;
mod error;
mod keyvalue;
mod lost_leases;
pub mod patience;
pub mod remote;
#[cfg(test)]
mod remote_tests;
mod timers;

pub use connect::{BackEnd, Connection, Running};
pub use endings::Endings;
pub use error::DurableError;
pub use lost_leases::LostLeases;
