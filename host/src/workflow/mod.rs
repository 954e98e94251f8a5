//! The durable workflow of one message.

pub mod emit;
pub mod workflow_id;
