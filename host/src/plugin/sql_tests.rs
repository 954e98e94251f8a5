//! SQL from plugins.
