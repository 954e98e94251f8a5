//! The Kafka side against a real broker, whose address is in PAWL_TEST_KAFKA.

mod away;
mod emitter;
mod fixture;
mod group;
mod guarantees;
mod once;
mod order;
mod pressure;
mod tools;
