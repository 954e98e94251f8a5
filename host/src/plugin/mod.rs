//! The plugin engine: components are loaded, swapped and called here.

pub mod contract;
