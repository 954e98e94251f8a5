//! `wasi:config/store`: the route's `config` table.

use super::Capability;
use std::collections::BTreeMap;
use std::fmt;
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &["wasi:config/store@0.2.0-rc.1"],
    link: |linker| wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::new(&state.grants.config.0)),
    grant: None,
};

/// The settings of a route, in the form in which all its calls read them.
pub(in crate::plugin) struct Settings(WasiConfigVariables);

impl Settings {
    pub(in crate::plugin) fn new(config: &BTreeMap<String, String>) -> Self {
        Settings(config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl fmt::Debug for Settings {
    /// Some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}
