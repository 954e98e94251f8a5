//! Pawl: durable Kafka workers whose business logic is a hot-swappable WebAssembly component.
//!
//! The path of a message reads top to bottom: consumer -> dispatch -> workflow -> step -> plugin -> completion.

pub mod config;
pub mod kafka;
pub mod plugin;
pub mod workflow;
