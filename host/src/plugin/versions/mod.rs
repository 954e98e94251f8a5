//! The versions of each plugin: what is kept of them, which one a step runs, and when a new one is given up again.

mod carry_out;
mod choice;
mod command;
mod following;
mod keeper;
mod kept;
mod report;
mod state;
mod trial;

pub(super) use choice::{NoChoice, Policy, Serving};
pub use command::{Command, CommandError, Report, RowOfVersion, ServedRoute};
pub(super) use keeper::Keeper;
pub use kept::Keeping;
pub(super) use report::report;
pub(super) use state::{RouteSpec, State};
pub use trial::Counts;
pub(super) use trial::{Tally, Trial};
