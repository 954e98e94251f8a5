//! Whether the store keeps to the Resonate protocol, seen from outside: its public API alone, on a virtual clock.

mod client;
mod coverage;
mod differential;
mod history;
mod linearizability;
mod operation;
mod questions;
mod reference;
