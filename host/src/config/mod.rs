//! The configuration file: types, defaults, validation.

mod types;

pub use types::*;
