//! Disks that are full, fail, tear writes or can't be written, and files that are no stores.

#[path = "../load/mod.rs"]
mod load;
mod opening;
mod timers;
mod vfs;
mod writing;
