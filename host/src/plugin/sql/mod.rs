//! SQL for plugins: the databases of a worker, and what one call does to them, exactly once.

mod answer;
mod database;
mod effects;
mod error;
mod postgres;
mod postgres_session;
mod postgres_text;
mod postgres_time;
mod postgres_values;
mod sqlite;
mod sqlite_session;
mod statement;
mod steps;
mod tls;

pub use database::Databases;
pub(super) use database::Sql;
pub(super) use effects::{Effects, Kind, Undone};
pub(super) use steps::key;
