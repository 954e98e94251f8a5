//! `pawl promises`: list and settle what workflows wait for.

use super::{Output, logging, settings, shutdown};
use crate::admin;
use crate::config::Config;
use crate::durable::client::{Client, PromiseState, Settle, param};
use crate::durable::remote::{Endpoint, RemoteNetwork};
use crate::workflow::checkpoint::WaitingPromise;
use crate::workflow::start::root_id;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

#[derive(Debug, Subcommand)]
pub enum PromisesCommand {
    /// List what workflows wait for
    List(ListArgs),
    /// Resolve a promise: the workflow goes on with the value
    Resolve(SettleArgs),
    /// Reject a promise: the workflow goes on with the value as a rejection
    Reject(SettleArgs),
}

#[derive(Debug, Clone, Args)]
struct BackEndArgs {
    /// The configuration file: names the Resonate server or the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl promises list\n  pawl promises list records/rec-1")]
pub struct ListArgs {
    /// Only those of this workflow
    workflow: Option<String>,
    #[command(flatten)]
    back_end: BackEndArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl promises resolve records/rec-1 approval '{\"by\":\"anna\"}'")]
pub struct SettleArgs {
    /// The workflow's id, as `pawl promises list` prints it
    workflow: String,
    /// The name that the plugin gave the promise
    name: String,
    /// The value, JSON
    #[arg(default_value = "null")]
    value: String,
    #[command(flatten)]
    back_end: BackEndArgs,
}

pub fn run(command: PromisesCommand, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    shutdown::block_on(async {
        match command {
            PromisesCommand::List(args) => list(args).await,
            PromisesCommand::Resolve(args) => settle(args, Settle::Resolved).await,
            PromisesCommand::Reject(args) => settle(args, Settle::Rejected).await,
        }
    })
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (client, open) = connect(&args.back_end).await?;
    let mut cursor = None;
    loop {
        let (waiting, next) = match &args.workflow {
            Some(workflow) => (waiting_of(&client, workflow).await?, None),
            None => waiting_page(&client, tags(None), cursor.as_deref()).await?,
        };
        for (id, promise) in waiting {
            println!("{}\t{}\t{id}", promise.workflow, promise.name);
        }
        if next.is_none() {
            return open.close().await;
        }
        cursor = next;
    }
}

async fn settle(args: SettleArgs, state: Settle) -> anyhow::Result<()> {
    let value: serde_json::Value = serde_json::from_str(&args.value)
        .with_context(|| format!("`{}` is not JSON; a text needs quotes of its own: '\"text\"'", args.value))?;
    let (client, open) = connect(&args.back_end).await?;
    let waiting = waiting_of(&client, &args.workflow).await?;
    let Some((id, _)) = waiting.iter().find(|(_, promise)| promise.name == args.name) else {
        let names: Vec<&str> = waiting.iter().map(|(_, promise)| promise.name.as_str()).collect();
        match names.as_slice() {
            [] => bail!("workflow `{}` waits for nothing; `pawl promises list` shows what does", args.workflow),
            names => bail!(
                "workflow `{}` does not wait for `{}`; it waits for: {}",
                args.workflow,
                args.name,
                names.join(", ")
            ),
        }
    };
    let wanted = match state {
        Settle::Resolved => PromiseState::Resolved,
        _ => PromiseState::Rejected,
    };
    let record = client.settle(id, state, value).await?;
    if record.state != wanted {
        bail!("promise `{}` of workflow `{}` was settled by somebody else just before", args.name, args.workflow);
    }
    open.close().await
}

fn tags(origin: Option<&str>) -> HashMap<String, String> {
    let mut tags = HashMap::from([("resonate:scope".to_owned(), "global".to_owned())]);
    if let Some(origin) = origin {
        tags.insert("resonate:origin".to_owned(), origin.to_owned());
    }
    tags
}

type Waiting = Vec<(String, WaitingPromise)>;

/// What the roots of one workflow's chain wait for.
async fn waiting_of(client: &Client, workflow: &str) -> anyhow::Result<Waiting> {
    let mut found = Vec::new();
    for index in 0.. {
        let root = root_id(workflow, index);
        if client.get(&root).await?.is_none() {
            if index == 0 {
                bail!("there is no workflow `{workflow}`; its id is ROUTE/ID, as the log prints it");
            }
            break;
        }
        let mut cursor = None;
        loop {
            let (waiting, next) = waiting_page(client, tags(Some(&root)), cursor.as_deref()).await?;
            found.extend(waiting);
            if next.is_none() {
                break;
            }
            cursor = next;
        }
    }
    Ok(found)
}

async fn waiting_page(
    client: &Client,
    tags: HashMap<String, String>,
    cursor: Option<&str>,
) -> anyhow::Result<(Waiting, Option<String>)> {
    let (promises, next) = client.pending(tags, cursor).await?;
    // Sleeps and the ends of chains have the same scope, but name nobody.
    let waiting = promises
        .into_iter()
        .filter_map(|record| {
            let promise = serde_json::from_value::<WaitingPromise>(param(&record).clone()).ok()?;
            Some((record.id, promise))
        })
        .collect();
    Ok((waiting, next))
}

/// What was opened for one command.
enum Open {
    Nothing,
    Store(pawl_store::Store),
}

impl Open {
    async fn close(self) -> anyhow::Result<()> {
        match self {
            Open::Nothing => Ok(()),
            Open::Store(store) => Ok(store.close().await?),
        }
    }
}

/// The server; or the worker that holds the store; or, if none does, the store itself.
async fn connect(args: &BackEndArgs) -> anyhow::Result<(Client, Open)> {
    let config = settings::file(args.config.as_deref())?.unwrap_or_else(|| Config::default_in(Path::new(".")));
    let none = || Arc::new(Semaphore::new(0));
    if let Some(server) = &config.resonate {
        let token = server.token.as_ref().map(|token| token.0.clone());
        let network = RemoteNetwork::new(Endpoint::Url(&server.url), &server.group, token, none())?;
        return Ok((Client::new(Arc::new(network)), Open::Nothing));
    }
    let socket = admin::socket_path(&config.store.path);
    if admin::answers(&socket).await {
        let network = RemoteNetwork::new(Endpoint::Socket(&socket), "cli", None, none())?;
        return Ok((Client::new(Arc::new(network)), Open::Nothing));
    }
    if !config.store.path.exists() {
        bail!(
            "there is no store at {}; name the worker's configuration file with --config",
            config.store.path.display()
        );
    }
    let store = pawl_store::Store::open(pawl_store::Options {
        path: config.store.path.clone(),
        retention: config.store.retention,
        ..pawl_store::Options::default()
    })
    .await?;
    let network = store.network("cli", none());
    Ok((Client::new(Arc::new(network)), Open::Store(store)))
}
