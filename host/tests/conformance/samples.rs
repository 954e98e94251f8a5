//! `delete-batch` is the same in every language: the same outcomes, states and log lines, so that one can take over from another.
