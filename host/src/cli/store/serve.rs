//! `pawl store serve`: the store over HTTP, so that several workers share it.

use super::StoreArgs;
use crate::cli::exit::UsageError;
use crate::cli::{Output, logging, shutdown, write_whole};
use bytesize::ByteSize;
use clap::Args;
use pawl_store::http::{HttpError, HttpOptions, HttpServer, PushTo, Tokens};
use pawl_store::{Options, Store};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Where tokens come from that must not show in a list of processes.
const TOKENS_VARIABLE: &str = "PAWL_STORE_TOKENS";

#[derive(Debug, Args)]
#[command(after_help = "\
Serves the protocol of Resonate servers, version 2026-04-01: workers name it in [resonate] url, other programs in their Resonate SDK.
Tokens are read from --tokens-file, one per line, and from the environment variable PAWL_STORE_TOKENS, separated by commas.
GET /health tells whether it answers, GET /metrics what it counts (Prometheus).

Example:
  pawl store serve --store pawl.db --listen 127.0.0.1:8001")]
pub struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where to listen; port 0 takes a free one
    #[arg(short, long, value_name = "ADDRESS", default_value_t = HttpOptions::default().listen)]
    listen: SocketAddr,
    /// Write host:port into this file once it serves
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// Let in only who has one of the tokens in this file
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
    /// Listen beyond this machine without tokens
    #[arg(long)]
    without_tokens: bool,
    /// Refuse larger requests
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(HttpOptions::default().largest_body as u64))]
    largest_request: ByteSize,
    /// Connections at a time, poll streams among them
    #[arg(long, value_name = "N", default_value_t = HttpOptions::default().connections as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Poll streams at a time
    #[arg(long, value_name = "N", default_value_t = HttpOptions::default().streams as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    streams: u32,
    /// Requests per second from one address; without it there is no bound
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Push messages only to targets below this URL (may be repeated); without it to every http:// target
    #[arg(long, value_name = "URL")]
    push_to: Vec<String>,
    /// Push no messages
    #[arg(long, conflicts_with = "push_to")]
    no_push: bool,
    /// Remove settled workflows after this time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    retention: Option<Duration>,
    /// How long shutdown waits for requests under way
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10s")]
    drain: Duration,
    /// For tests of the protocol: offer the debug operations, and let requests say what time it is
    #[arg(long)]
    debug: bool,
}

pub fn run(args: ServeArgs, output: &Output) -> anyhow::Result<()> {
    logging::init(output, None)?;
    let settings = args.store.settings()?;
    let options = args.http_options()?;
    let store = Options {
        path: settings.path,
        retention: args.retention.unwrap_or(settings.retention),
        debug: args.debug,
        ..Options::default()
    };
    shutdown::block_on(async {
        let shutdown = shutdown::on_signal()?;
        let path = store.path.clone();
        // The port first: where it is taken, nothing of the store is touched.
        let listener = HttpServer::listen(options.listen).await?;
        let store = Store::open(store).await?;
        let server = HttpServer::start_on(listener, store.clone(), options).await?;
        tracing::info!(store = %path.display(), "serving at http://{}", server.address());
        if let Some(path) = &args.address_file {
            write_whole(path, server.address().to_string())?;
        }
        shutdown.cancelled().await;
        server.close(args.drain).await;
        Ok(store.close().await?)
    })
}

impl ServeArgs {
    fn http_options(&self) -> anyhow::Result<HttpOptions> {
        let tokens = self.tokens()?;
        if tokens.is_empty() && !self.listen.ip().is_loopback() && !self.without_tokens {
            let message = format!(
                "{} can be reached from other machines, and without tokens everybody there is let in: give --tokens-file or \
                 {TOKENS_VARIABLE}, or say --without-tokens if something in front of it lets people in",
                self.listen
            );
            return Err(UsageError(message).into());
        }
        let push_to = match (self.no_push, self.push_to.is_empty()) {
            (false, true) => PushTo::Anywhere,
            _ => PushTo::only(self.push_to.iter().map(String::as_str)).map_err(usage)?,
        };
        Ok(HttpOptions {
            listen: self.listen,
            tokens,
            largest_body: usize::try_from(self.largest_request.as_u64()).unwrap_or(usize::MAX),
            connections: self.connections as usize,
            streams: self.streams as usize,
            rate: self.rate,
            push_to,
            ..HttpOptions::default()
        })
    }

    fn tokens(&self) -> anyhow::Result<Tokens> {
        let of_file =
            self.tokens_file.as_deref().map(Tokens::from_file).transpose().map_err(usage)?.unwrap_or_default();
        let of_variable = match std::env::var(TOKENS_VARIABLE) {
            Ok(list) => Tokens::from_list(TOKENS_VARIABLE, &list).map_err(usage)?,
            Err(_) => Tokens::default(),
        };
        Ok(of_file.and(of_variable))
    }
}

/// What was wrong on the command line, with its cause.
fn usage(e: HttpError) -> UsageError {
    UsageError(format!("{:#}", anyhow::Error::from(e)))
}
