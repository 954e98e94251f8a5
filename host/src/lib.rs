//! Pawl: durable Kafka workers whose business logic is a hot-swappable WebAssembly component.
//!
//! The path of a message reads top to bottom: consumer -> dispatch -> workflow -> step -> plugin -> completion. A module knows
//! only the ones to its right: cli > worker > admin > kafka > workflow > plugin | durable > config. The workflow knows nothing of
//! Kafka's client (it emits through a trait), the plugin engine nothing of Resonate.

pub mod admin;
mod causes;
pub mod cli;
mod clock;
pub mod config;
pub mod durable;
mod fail_point;
pub mod kafka;
pub mod plugin;
pub mod worker;
pub mod workflow;
