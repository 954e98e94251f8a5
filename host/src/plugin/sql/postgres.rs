//! A PostgreSQL server: its pool of connections, and the table of steps there.

use super::error::SqlError;
use super::postgres_session::{Session, fault};
use super::steps::TABLE;
use super::tls::Split;
use crate::causes::causes;
use crate::config::{Database, Secret};
use crate::plugin::gate::Pass;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection may take to come about, unless the URL says.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that went away without a word is noticed after this, not after the two hours of the system.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long it counts as known that the table of steps is not there.
const MISSING_FOR: Duration = Duration::from_secs(10);

/// A server and what is known of it.
#[derive(Debug)]
pub(super) struct Postgres {
    /// `[database.NAME]`
    place: String,
    pool: Pool,
    tls: Tls,
    table: Mutex<Option<Table>>,
}

/// How connections are encrypted, also those that cancel a statement.
struct Tls(MakeRustlsConnect);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The table of steps: its full name, or why there is none and since when that is known.
#[derive(Debug, Clone)]
pub(super) enum Table {
    There(Arc<str>),
    Missing { reason: Arc<str>, since: Instant },
}

impl Postgres {
    /// Connects to nothing yet. The error says what is wrong with the URL, without showing it.
    pub(super) fn new(place: &str, url: &Secret, settings: &Database) -> Result<Postgres, String> {
        let split = Split::new(&url.0)?;
        let mut config: tokio_postgres::Config = split
            .url
            .parse()
            .map_err(|e: tokio_postgres::Error| format!("the url is not understood: {}", causes(&e)))?;
        config.ssl_mode(split.mode);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if !split.url.contains("keepalives") {
            config.keepalives_idle(KEEPALIVE);
        }
        if config.get_application_name().is_none() {
            config.application_name("pawl");
        }
        let tls = Tls(split.connector()?);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, tls.0.clone(), recycling);
        let pool = Pool::builder(manager).max_size(settings.connections).build().map_err(|e| e.to_string())?;
        Ok(Postgres { place: place.to_owned(), pool, tls, table: Mutex::default() })
    }

    /// A connection on which nothing has begun. `idle` is how long the server lets a transaction wait for its next statement: a
    /// worker that stands still must not hold its locks for ever.
    pub(super) async fn connect(self: &Arc<Self>, pass: Pass, idle: Duration) -> Result<Session, SqlError> {
        let away = |what: String| SqlError::Unavailable(format!("{} can't be reached: {what}", self.place));
        let client = self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) => away(causes(&e)),
            other => away(other.to_string()),
        })?;
        let table = match self.known() {
            Some(table) => table,
            None => {
                let table = self.find(&client).await?;
                *self.lock() = Some(table.clone());
                table
            }
        };
        Ok(Session::new(client, self.clone(), table, idle, pass))
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.0.clone()
    }

    /// Forgets what is known of the table of steps: a statement on it failed.
    pub(super) fn forget_table(&self) {
        *self.lock() = None;
    }

    fn known(&self) -> Option<Table> {
        let known = self.lock().clone();
        known.filter(|table| match table {
            Table::There(_) => true,
            Table::Missing { since, .. } => since.elapsed() < MISSING_FOR,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the table of steps, or creates it.
    async fn find(&self, client: &Object) -> Result<Table, SqlError> {
        client.batch_execute(CLEAN).await.map_err(|e| fault(&self.place, &e))?;
        let found = async || {
            let rows = client.query(FIND, &[]).await.map_err(|e| fault(&self.place, &e))?;
            Ok::<_, SqlError>(rows.first().and_then(|row| row.try_get::<_, String>(0).ok()))
        };
        if let Some(name) = found().await? {
            return Ok(Table::There(name.into()));
        }
        let created = client.batch_execute(CREATE).await;
        // Another worker may have been first, which some versions tell as an error of their own.
        if let Some(name) = found().await? {
            return Ok(Table::There(name.into()));
        }
        let why = created.err().map_or_else(|| "it is not there".to_owned(), |e| fault(&self.place, &e).to_string());
        let reason = format!(
            "{} has no table {TABLE}, which the changes of plugins need, and it can't be created: {why}; let a role that may do so \
             run: {CREATE}; and GRANT SELECT, INSERT, DELETE ON {TABLE} to the role of the url",
            self.place
        );
        Ok(Table::Missing { reason: reason.into(), since: Instant::now() })
    }
}

/// What an earlier call may have left behind in the session goes first.
pub(super) const CLEAN: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                                SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// Its name with that of the schema, which a plugin's own search path does not change.
const FIND: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c \
                    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('pawl_steps')";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS pawl_steps (key text PRIMARY KEY, outcome text NOT NULL, \
                      at timestamptz NOT NULL DEFAULT now()); \
                      CREATE INDEX IF NOT EXISTS pawl_steps_at ON pawl_steps (at)";
