//! `pawl plugin`: what whoever writes a plugin or brings it to others needs, without Kafka, and the versions in a running worker.

mod call;
mod check;
mod message;
mod name;
mod new;
mod pull;
mod push;
mod templates;
mod test;
mod transcript;
mod versions;

use super::exit::UsageError;
use super::{Output, logging, settings, shutdown};
use crate::config::{Config, OciReference, Route};
use crate::durable::client::Client;
use crate::plugin::contract::Signal;
use crate::plugin::{Access, Databases, Digest, Engine, EngineSettings, Grants, Version};
use crate::worker::keyvalue::StoreBuckets;
use crate::workflow::rehearsal::Rehearsal;
use anyhow::Context;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::Semaphore;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the project of a new plugin, which builds and works as it is
    New(new::NewArgs),
    /// Check whether a component fits: contract, imports and what must be allowed, size, digest, compile time
    Check(check::CheckArgs),
    /// Run a whole message through a component without Kafka, sleeps skipped, each step shown
    Call(call::CallArgs),
    /// Run recorded messages through a component and compare each step
    Test(test::TestArgs),
    /// Bring a component from an OCI registry
    Pull(pull::PullArgs),
    /// Put a component into an OCI registry
    Push(push::PushArgs),
    /// List the versions of the plugins of a running worker: what is kept, what runs where, how often it failed
    Versions(versions::VersionsArgs),
    /// Go on with a version of a plugin that is kept, on all routes that are not pinned
    Use(versions::UseArgs),
    /// Have a route run one version, whatever is dropped
    Pin(versions::PinArgs),
    /// Have a route do again what its `versions` in pawl.toml says
    Unpin(versions::UnpinArgs),
    /// Have a share of a route's workflows run the newest version, and the others the one before
    Canary(versions::CanaryArgs),
    /// Go back to the version before, on one route or all routes of a plugin
    Rollback(versions::RollbackArgs),
}

pub fn run(command: PluginCommand, output: &Output) -> anyhow::Result<()> {
    // A test says what differs: the plugin's own lines would be in the way.
    let quiet = Output { quiet: matches!(command, PluginCommand::Test(_)) && output.verbose == 0, ..output.clone() };
    logging::init(&quiet, None)?;
    shutdown::block_on(async {
        match command {
            PluginCommand::New(args) => new::run(&args),
            PluginCommand::Check(args) => check::run(args).await,
            PluginCommand::Call(args) => call::run(args).await,
            PluginCommand::Test(args) => test::run(args).await,
            PluginCommand::Pull(args) => pull::run(args).await,
            PluginCommand::Push(args) => push::run(args).await,
            PluginCommand::Versions(args) => versions::list(args).await,
            PluginCommand::Use(args) => versions::use_version(args).await,
            PluginCommand::Pin(args) => versions::pin(args).await,
            PluginCommand::Unpin(args) => versions::unpin(args).await,
            PluginCommand::Canary(args) => versions::canary(args).await,
            PluginCommand::Rollback(args) => versions::rollback(args).await,
        }
    })
}

/// How the registry of a reference is spoken to.
fn registry_access(reference: &OciReference, plain_http: bool) -> anyhow::Result<Access> {
    let plain: Vec<String> = plain_http.then(|| reference.registry().to_owned()).into_iter().collect();
    Ok(Access::from_environment(&plain, |name| std::env::var(name).ok())?)
}

/// The route that a component would be on.
#[derive(Debug, Clone, Args)]
struct RouteArgs {
    /// The configuration file; without one, and without a pawl.toml here, a route that allows nothing
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The route whose settings hold; without it the first that names the plugin
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// A setting that the plugin reads through wasi:config, in addition to those of the route
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl RouteArgs {
    /// The route that the arguments name, or one made up for the plugin; whether it is in a file; and the databases of that.
    fn resolve(&self, plugin: &str) -> anyhow::Result<(Route, bool, Databases)> {
        let config = settings::file(self.config.as_deref())?;
        let (routes, databases) = config.map(|config| (config.routes, config.databases)).unwrap_or_default();
        let named = match &self.route {
            Some(name) => {
                let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
                let found = routes.iter().find(|route| route.name == *name);
                Some(found.ok_or_else(|| {
                    UsageError(format!("there is no route `{name}`; the configuration has: {}", names.join(", ")))
                })?)
            }
            None => routes.iter().find(|route| route.plugin == plugin),
        };
        let mut route = match named {
            Some(route) => route.clone(),
            None => Config::development(Path::new("."), &[plugin.to_owned()]).routes.remove(0),
        };
        route.config.0.extend(self.settings.iter().cloned());
        Ok((route, named.is_some(), Databases::new(&databases)?))
    }
}

/// A component and the route that it would be on.
struct Loaded {
    version: Arc<Version>,
    route: Route,
    /// Whether the route is in a file: one that is made up allows nothing, which is no reason to refuse the component.
    configured: bool,
    databases: Databases,
    grants: Arc<Grants>,
    /// For compiled code and buckets: a tool leaves nothing behind.
    _cache: TempDir,
}

impl Loaded {
    /// Compiles and checks the file, against the route too.
    async fn open(file: &Path, args: &RouteArgs) -> anyhow::Result<Loaded> {
        let plugin = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin").to_owned();
        let (route, configured, databases) = args.resolve(&plugin)?;
        Loaded::on(route, configured, databases, file).await
    }

    /// What a message would go through; waits end as `signals` say, and after `most` calls it is enough.
    fn rehearsal(&self, signals: Vec<Signal>, most: u64) -> Rehearsal<'_> {
        let Loaded { version, route, grants, .. } = self;
        Rehearsal { version, route, grants, signals: signals.into(), most }
    }

    /// Another component on the same route.
    async fn beside(other: &Loaded, file: &Path) -> anyhow::Result<Loaded> {
        Loaded::on(other.route.clone(), other.configured, other.databases.clone(), file).await
    }

    async fn on(route: Route, configured: bool, databases: Databases, file: &Path) -> anyhow::Result<Loaded> {
        let bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        let cache = tempfile::tempdir().context("can't create a temporary folder")?;
        let given = match route.allow.keyvalue.is_empty() {
            true => databases.clone(),
            false => databases.clone().with_buckets(empty_buckets(cache.path()).await?),
        };
        let grants = Grants::new(&route, &given)?;
        let engine = Engine::new(EngineSettings { calls: 1, cache: cache.path().to_owned() })?;
        let digest = Digest::of(&bytes);
        let routes = if configured { vec![grants.clone()] } else { Vec::new() };
        let loaded = engine.load_for(&route.plugin, bytes, digest, &routes).await;
        let version = loaded.map_err(|e| anyhow::anyhow!("{} {e}", file.display()))?;
        Ok(Loaded { version, route, configured, databases, grants, _cache: cache })
    }
}

/// Buckets for one component, and for as long as it is tried: the worker's own are in a store that the worker holds.
async fn empty_buckets(dir: &Path) -> anyhow::Result<Arc<StoreBuckets>> {
    let options = pawl_store::Options { path: dir.join("buckets.db"), ..pawl_store::Options::default() };
    let store = pawl_store::Store::open(options).await?;
    let network = store.network("pawl", Arc::new(Semaphore::new(0)));
    Ok(StoreBuckets::of_rehearsals(Client::new(Arc::new(network))))
}
