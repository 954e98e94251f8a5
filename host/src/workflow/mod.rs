//! The durable workflow of one message: step -> outcome -> sleep or wait -> next step ... -> events -> end.
//!
//! Everything that decides the course of a workflow is in a checkpoint before it takes effect, also what follows from settings
//! (topics, delays, attempts): a replay after a restart with another `pawl.toml` takes the same course up to the last checkpoint.

pub mod checkpoint;
pub mod dead_letter;
mod decide;
mod emission;
pub mod emit;
pub mod holders;
pub mod observe;
pub mod rehearsal;
mod run;
pub mod start;
mod steps;
pub mod workflow_id;

pub use run::{Deps, MessageWorkflow};
