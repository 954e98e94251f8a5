//! `wasi:config/store`: the route's `config` table.

use super::Capability;
use std::collections::BTreeMap;
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &["wasi:config/store@0.2.0-rc.1"],
    link: |linker| wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::new(&state.config.0)),
    grant: None,
};

/// The settings of one call.
pub(super) struct State(WasiConfigVariables);

impl State {
    pub(super) fn new(config: &BTreeMap<String, String>) -> Self {
        State(config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
