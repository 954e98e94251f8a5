//! WASI 0.2: clocks, random numbers and output. Of files, sockets, environment and arguments there are none: the interfaces are
//! there because language runtimes import them, and each use is refused.

use super::Capability;
use crate::plugin::output::{Output, Stream};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &[
        "wasi:cli/environment@0.2.12",
        "wasi:cli/exit@0.2.12",
        "wasi:cli/stderr@0.2.12",
        "wasi:cli/stdin@0.2.12",
        "wasi:cli/stdout@0.2.12",
        "wasi:cli/terminal-input@0.2.12",
        "wasi:cli/terminal-output@0.2.12",
        "wasi:cli/terminal-stderr@0.2.12",
        "wasi:cli/terminal-stdin@0.2.12",
        "wasi:cli/terminal-stdout@0.2.12",
        "wasi:clocks/monotonic-clock@0.2.12",
        "wasi:clocks/wall-clock@0.2.12",
        "wasi:filesystem/preopens@0.2.12",
        "wasi:filesystem/types@0.2.12",
        "wasi:io/error@0.2.12",
        "wasi:io/poll@0.2.12",
        "wasi:io/streams@0.2.12",
        "wasi:random/insecure@0.2.12",
        "wasi:random/insecure-seed@0.2.12",
        "wasi:random/random@0.2.12",
        "wasi:sockets/instance-network@0.2.12",
        "wasi:sockets/ip-name-lookup@0.2.12",
        "wasi:sockets/network@0.2.12",
        "wasi:sockets/tcp@0.2.12",
        "wasi:sockets/tcp-create-socket@0.2.12",
        "wasi:sockets/udp@0.2.12",
        "wasi:sockets/udp-create-socket@0.2.12",
    ],
    link: wasmtime_wasi::p2::add_to_linker_async,
    grant: None,
};

/// Handles that a call may hold.
const HANDLES: usize = 4096;

/// The handles of one call.
pub(super) struct State {
    /// Made when the plugin first asks for something of it, which the calls of many never do.
    context: Option<WasiCtx>,
    table: ResourceTable,
}

impl State {
    pub(super) fn new() -> Self {
        let mut table = ResourceTable::new();
        // They are memory of the host, which no limit of the plugin's memory counts.
        table.set_max_capacity(HANDLES);
        State { context: None, table }
    }

    /// The handles of all capabilities.
    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

fn context(output: &Output) -> WasiCtx {
    WasiCtx::builder()
        .stdout(output.stream(Stream::Stdout))
        .stderr(output.stream(Stream::Stderr))
        // Said although they are the library's defaults: the sandbox must not rest on those.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .socket_addr_check(|_, _| Box::pin(async { false }))
        .build()
}

impl WasiView for super::State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (grants, source) = (&self.grants, &self.source);
        let make = || context(&Output::new(source.clone(), grants.limits.log, grants.log.clone()));
        WasiCtxView { ctx: self.wasi.context.get_or_insert_with(make), table: &mut self.wasi.table }
    }
}
