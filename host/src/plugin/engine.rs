//! The engine: compiles components and holds what all calls share.

use super::cache::Cache;
use super::capabilities::{self, State};
use super::digest::Digest;
use super::error::{EngineError, LoadError};
use super::grants::Grants;
use super::lanes::Lanes;
use super::limits::most;
use super::ticker::Ticker;
use super::version::Version;
use super::{fit, shape};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// What one linear memory takes of the address space. With all that 32 bits can address in reserve, compiled code need not check
/// bounds.
const MEMORY_RESERVATION: u64 = 4 << 30;
/// Deep enough for interpreters within a component.
const WASM_STACK: usize = 1 << 20;
const ASYNC_STACK: usize = 2 << 20;
/// What a call wrote to tables of up to this size is overwritten when it ends instead of taken away page by page, so that the next call
/// need not fault them in again. Of linear memories, which are far larger than what a call touches of them, this would cost more than it
/// saves; that only what was written is overwritten (`pagemap_scan`) would halve the time of a small call, but pages that are being
/// swapped out or moved just then are passed over and reach the next call as they are.
const KEPT_TABLE: usize = 64 << 10;
/// More than fits in the address space of any machine.
const MOST_CALLS: usize = 8192;
/// Slots beyond the permits, for a store that is just being taken apart.
const SPARE: u32 = 2;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Component calls at a time; more wait.
    pub calls: usize,
    /// The folder for compiled components. It is created; if it can't be written, each start compiles.
    pub cache: PathBuf,
}

/// The plugin engine. Clones share everything.
#[derive(Clone)]
pub struct Engine(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) engine: wasmtime::Engine,
    pub(super) permits: Arc<Semaphore>,
    pub(super) lanes: Lanes,
    linker: Linker<State>,
    cache: Cache,
    compiled: AtomicU64,
    _ticker: Ticker,
}

impl Engine {
    /// Reserves address space for all calls at once, so that no call fails for want of it later.
    pub fn new(settings: EngineSettings) -> Result<Engine, EngineError> {
        let calls = settings.calls;
        if !(1..=MOST_CALLS).contains(&calls) {
            return Err(EngineError::Calls { calls, most: MOST_CALLS });
        }
        // Fits: MOST_CALLS is small.
        let slots = calls as u32 + SPARE;
        let engine = wasmtime::Engine::new(&config(slots)).map_err(|e| EngineError::Pool {
            calls,
            reserved: u64::from(slots * most::MEMORIES) * (MEMORY_RESERVATION >> 30),
            cause: format!("{e:#}"),
        })?;
        let mut linker = Linker::new(&engine);
        capabilities::link(&mut linker).map_err(|e| EngineError::Link(format!("{e:#}")))?;
        Ok(Engine(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(calls)),
            lanes: Lanes::start().map_err(EngineError::Threads)?,
            linker,
            cache: Cache::open(&settings.cache, &engine),
            compiled: AtomicU64::new(0),
            _ticker: Ticker::start(&engine).map_err(EngineError::Threads)?,
            engine,
        })))
    }

    /// Compiles (or finds in the cache) and checks a component, off the async threads.
    pub async fn load(&self, name: &str, bytes: Vec<u8>) -> Result<Arc<Version>, LoadError> {
        let (engine, name) = (self.clone(), Arc::from(name));
        blocking(move || engine.load_blocking(name, &bytes, Digest::of(&bytes), &[])).await
    }

    /// The same for who knows the digest already, and the routes that will call it.
    pub async fn load_for(
        &self,
        name: &str,
        bytes: Vec<u8>,
        digest: Digest,
        routes: &[Arc<Grants>],
    ) -> Result<Arc<Version>, LoadError> {
        let (engine, name, routes) = (self.clone(), Arc::from(name), routes.to_vec());
        blocking(move || engine.load_blocking(name, &bytes, digest, &routes)).await
    }

    /// How many components were compiled, not found in the cache, since the start.
    pub fn compiled(&self) -> u64 {
        self.0.compiled.load(Ordering::Relaxed)
    }

    fn load_blocking(
        &self,
        name: Arc<str>,
        bytes: &[u8],
        digest: Digest,
        routes: &[Arc<Grants>],
    ) -> Result<Arc<Version>, LoadError> {
        let inner = &self.0;
        shape::check(bytes)?;
        let begun = Instant::now();
        let (component, compiled_in) = match inner.cache.load(&inner.engine, &digest) {
            Some(component) => (component, None),
            None => {
                let component =
                    Component::from_binary(&inner.engine, bytes).map_err(|e| LoadError::Invalid(format!("{e:#}")))?;
                inner.compiled.fetch_add(1, Ordering::Relaxed);
                let compiled_in = begun.elapsed();
                inner.cache.store(&digest, &component);
                (component, Some(compiled_in))
            }
        };
        let handler = fit::check(&component, &inner.linker, routes)?;
        Ok(Arc::new(Version::new(name, digest, bytes.len(), compiled_in, handler, self.clone())))
    }
}

async fn blocking(
    load: impl FnOnce() -> Result<Arc<Version>, LoadError> + Send + 'static,
) -> Result<Arc<Version>, LoadError> {
    tokio::task::spawn_blocking(load).await.unwrap_or_else(|e| Err(LoadError::Compiler(e.to_string())))
}

fn config(slots: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * most::INSTANCES)
        .total_memories(slots * most::MEMORIES)
        .total_tables(slots * most::TABLES)
        .total_stacks(slots)
        .max_core_instances_per_component(most::INSTANCES)
        .max_memories_per_component(most::MEMORIES)
        .max_tables_per_component(most::TABLES)
        .max_tables_per_module(most::TABLES)
        .max_memories_per_module(most::MEMORIES)
        .table_elements(most::TABLE_ELEMENTS)
        .table_keep_resident(KEPT_TABLE)
        .max_memory_size(MEMORY_RESERVATION as usize);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MEMORY_RESERVATION)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK);
    config
}
