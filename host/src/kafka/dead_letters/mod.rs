//! Dead letters where they lie, on their topics: read, chosen, replayed.
//!
//! A letter is replayed once. Its message, and a mark beside the letter that says so, are produced in one transaction, under an identity
//! (`transactional.id`) that all replays of the topic share: whoever takes it ends what another one left open, and fences it. What
//! has a mark is not replayed again.

pub mod filter;
pub mod letter;
pub mod read;
pub mod replay;
