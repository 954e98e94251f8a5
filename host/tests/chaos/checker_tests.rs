//! The checker finds each kind of violation in a history that has it, and nothing in a clean one.
