//! A worker: plugins, durable back end, emitter and consumer put together, and taken apart again in order.

mod dispatcher;
pub mod keyvalue;
mod pruner;

use crate::admin::{self, AdminError};
use crate::config::{Config, Kafka, OciReference, Plugins, Route};
use crate::durable::{BackEnd, Connection, DurableError, LostLeases, Running};
use crate::kafka::{Consumer, ConsumerError, ConsumerSettings, Emitter, KafkaError, OnceEmitter};
use crate::plugin::{
    Access, Databases, Engine, EngineError, EngineSettings, GrantError, Keeping, Registry, RegistryError, Routes,
    Sources, TrustedKeys, Wanted, Watch,
};
use crate::workflow::observe::Observer;
use crate::workflow::{Deps, MessageWorkflow};
use dispatcher::Dispatcher;
use keyvalue::StoreBuckets;
use pruner::Pruner;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Why a worker could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The plugin engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What a route allows its plugin.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The plugins folder.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The durable back end.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A Kafka client.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The consumer.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Where the plugins come from.
fn sources(config: &Config) -> Result<Sources, RegistryError> {
    let Plugins { dir, cache, trusted_keys, plain_http, .. } = &config.plugins;
    let mut references: Vec<OciReference> = config.routes.iter().filter_map(Route::reference).collect();
    references.sort_by_key(ToString::to_string);
    references.dedup();
    let access = match references.is_empty() {
        true => Access::default(),
        false => Access::from_environment(plain_http, |name| std::env::var(name).ok())?,
    };
    Ok(Sources {
        dir: dir.clone(),
        trusted_keys: TrustedKeys::new(trusted_keys),
        keeping: Keeping::of(&config.plugins),
        wanted: Wanted { references, access, cache: cache.clone() },
    })
}

/// A worker that executes workflows and is ready to consume.
pub struct Worker {
    consumer: Consumer,
    emitter: Arc<Emitter>,
    once: Arc<OnceEmitter>,
    running: Running,
    watch: Watch,
    pruner: Pruner,
    admin: Option<admin::Server>,
    drain: Duration,
}

impl Worker {
    /// Loads the plugins, opens the durable back end and begins to execute what it holds.
    pub async fn start(config: &Config, kafka: &Kafka, observer: Observer) -> Result<Self, WorkerError> {
        let engine = Engine::new(EngineSettings { calls: config.worker.calls, cache: config.plugins.cache.clone() })?;
        // The store first: when another process holds it, nothing else should have begun.
        let connection = Connection::open(config).await?;
        let buckets = StoreBuckets::of_workflows(connection.client().clone());
        let databases = Databases::new(&config.databases)?.with_buckets(buckets);
        let grants = Routes::new(&config.routes, config.worker.calls, &databases)?;
        let (plugins, watch) = Registry::open_from(engine, sources(config)?, grants).await?;
        let emitter = Arc::new(Emitter::new(kafka)?);
        let once = Arc::new(OnceEmitter::start(kafka)?);
        let routes: Vec<Arc<Route>> = config.routes.iter().cloned().map(Arc::new).collect();
        let client = connection.client().clone();
        let (executions, endings) = (connection.executions().clone(), connection.endings().clone());
        let deps = Arc::new(Deps {
            routes: routes.iter().map(|route| (route.name.clone(), route.clone())).collect(),
            plugins: plugins.clone(),
            emitter: emitter.clone(),
            once: once.clone(),
            client: client.clone(),
            executions: executions.clone(),
            lost_leases: LostLeases::new(client.clone(), executions.clone()),
            suspects: Semaphore::new(1),
            observer: observer.clone(),
        });
        let door = admin::Plugins { registry: plugins.clone(), client: client.clone() };
        let admin = match connection.back_end() {
            BackEnd::Embedded(store) => admin::Server::open(&config.store.path, store.clone(), door).await?,
            BackEnd::Remote(_) => admin::Server::open_for_plugins(&config.plugins.versions, door).await,
        };
        let pruner = Pruner::start(plugins.clone(), client.clone());
        let running = connection.start(|resonate| {
            let resonate = resonate.with_dependency(deps);
            resonate.register(MessageWorkflow)?;
            Ok(resonate)
        })?;
        let dispatch =
            Arc::new(Dispatcher { client, executions, endings, plugins, emitter: emitter.clone(), observer });
        let settings = ConsumerSettings { drain: config.worker.drain, ..ConsumerSettings::default() };
        let consumer = Consumer::new(kafka, routes, dispatch, settings);
        Ok(Worker { consumer, emitter, once, running, watch, pruner, admin, drain: config.worker.drain })
    }

    /// Consumes until `shutdown`, then lets the steps under way end, hands out what they emitted and closes everything.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let consumed = self.consumer.run(shutdown).await;
        if let Some(admin) = self.admin {
            admin.close().await;
        }
        self.pruner.stop().await;
        let closed = self.running.shut_down(self.drain).await;
        self.once.close(self.drain).await;
        self.emitter.close(self.drain).await;
        self.watch.shutdown().await;
        consumed?;
        closed?;
        Ok(())
    }
}
