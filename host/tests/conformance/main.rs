//! The same cases for a component of each language: what the host says reaches the plugin unchanged, and the other way round.

mod cases;
mod language;
mod limits;
mod matrix;
mod measure;
mod protocol;
mod samples;
