//! The whole product against the real Kafka: the `pawl` binary as a process, killed with SIGKILL where it matters.

mod back_pressure;
mod crash;
mod dead_letters;
mod disk;
#[cfg(feature = "failpoints")]
mod keyvalue;
mod messages;
mod oci;
mod oci_registry;
mod order;
mod plugin_tools;
mod poison;
mod several;
mod sleeping;
#[cfg(feature = "failpoints")]
mod sql;
mod start_up;
mod support;
mod swap;
mod versions;
mod waiting;
#[cfg(feature = "failpoints")]
mod windows;
