//! The store as an HTTP server, over real sockets on the loopback interface.

mod bad_input;
mod keyvalue;
mod life;
mod limits;
mod push;
mod sdk;
mod streams;
mod support;
mod takeover;
