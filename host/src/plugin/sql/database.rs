//! The databases that are configured, and which of them a route allows.

use super::answer::Bounds;
use super::effects::Kind;
use super::error::SqlError;
use super::postgres::Postgres;
use super::postgres_session::{self, Claim};
use super::sqlite::Sqlite;
use super::sqlite_session;
use super::steps::{Cleaning, REMOVED_AT_ONCE};
use crate::config::{self, DatabaseUrl};
use crate::plugin::bindings::sql::{Answer, Value};
use crate::plugin::error::GrantError;
use crate::plugin::gate::{Gate, Waits};
use crate::plugin::keyvalue::Buckets;
use futures::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};

/// How long the removal of old rows may take.
const CLEANING: Duration = Duration::from_secs(30);

/// The databases of a worker and its store of buckets, shared by its routes. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Databases {
    sql: Arc<BTreeMap<String, Arc<Database>>>,
    buckets: Option<Arc<dyn Buckets>>,
}

impl Databases {
    /// Connects to none of them yet.
    pub fn new(databases: &BTreeMap<String, config::Database>) -> Result<Databases, GrantError> {
        let opened = databases.iter().map(|(name, settings)| {
            let database = Database::new(name, settings)?;
            Ok((name.clone(), Arc::new(database)))
        });
        Ok(Databases { sql: Arc::new(opened.collect::<Result<_, GrantError>>()?), buckets: None })
    }

    /// The same, with what keeps the buckets of plugins.
    pub fn with_buckets(self, buckets: Arc<dyn Buckets>) -> Databases {
        Databases { buckets: Some(buckets), ..self }
    }

    pub(in crate::plugin) fn buckets(&self) -> Option<Arc<dyn Buckets>> {
        self.buckets.clone()
    }
}

/// The databases that one route allows.
#[derive(Debug)]
pub(in crate::plugin) struct Sql {
    allowed: BTreeMap<String, Arc<Database>>,
    route: String,
}

impl Sql {
    /// Names that are no databases were refused with the configuration.
    pub(in crate::plugin) fn new(route: &str, names: &[String], databases: &Databases) -> Sql {
        let find = |name: &String| Some((name.clone(), databases.sql.get(name)?.clone()));
        Sql { allowed: names.iter().filter_map(find).collect(), route: route.to_owned() }
    }

    pub(super) fn get(&self, name: &str) -> Result<&Arc<Database>, SqlError> {
        self.allowed.get(name).ok_or_else(|| {
            SqlError::NotAllowed(format!(
                "route `{0}` does not allow the database `{name}`; add \"{name}\" to `allow.sql` of route `{0}`, and \
                 [database.{name}] if pawl.toml has none",
                self.route
            ))
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.allowed.values()
    }
}

/// One database.
#[derive(Debug)]
pub(in crate::plugin) struct Database {
    name: String,
    place: Place,
    settings: config::Database,
    bounds: Bounds,
    connections: Gate,
    rate: Gate,
    cleaning: Cleaning,
    is_cleaning: AtomicBool,
}

#[derive(Debug)]
enum Place {
    Postgres(Arc<Postgres>),
    Sqlite(Arc<Sqlite>),
}

impl Database {
    fn new(name: &str, settings: &config::Database) -> Result<Database, GrantError> {
        let what = format!("[database.{name}]");
        let place = match &settings.url {
            DatabaseUrl::Postgres(url) => Postgres::new(&what, url, settings)
                .map(|postgres| Place::Postgres(Arc::new(postgres)))
                .map_err(|fault| GrantError::Database { name: name.to_owned(), fault })?,
            DatabaseUrl::Sqlite(path) => Place::Sqlite(Arc::new(Sqlite::new(&what, path))),
        };
        let connections = config::Bounds { rate: None, at_once: Some(settings.connections) };
        let rate = config::Bounds { rate: settings.rate, at_once: None };
        Ok(Database {
            name: name.to_owned(),
            place,
            bounds: Bounds::new(name, settings),
            connections: Gate::new(&connections, "connections", &what),
            rate: Gate::new(&rate, "", &what),
            settings: settings.clone(),
            cleaning: Cleaning::default(),
            is_cleaning: AtomicBool::new(false),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How long one statement, or one step of a transaction's end, may take.
    pub(super) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Waits until the next statement may begin.
    pub(super) async fn take_turn(&self, deadline: Instant, waits: &Waits) -> Result<(), SqlError> {
        let turn = timeout_at(deadline.into(), self.rate.enter(waits)).await;
        turn.map(drop).map_err(|_elapsed| self.waited("its turn (`rate`)", "raise `rate`"))
    }

    /// A connection on which nothing has begun.
    pub(super) async fn connect(&self, deadline: Instant, idle: Duration, waits: &Waits) -> Result<Session, SqlError> {
        let pass = timeout_at(deadline.into(), self.connections.enter(waits)).await;
        let pass = pass.map_err(|_elapsed| {
            self.waited(
                &format!("one of its {} connections", self.settings.connections),
                "raise `connections`, or bound the calls of the route (`calls`)",
            )
        })?;
        let connect = async {
            match &self.place {
                Place::Postgres(postgres) => postgres.connect(pass, idle).await.map(Session::Postgres),
                Place::Sqlite(file) => file.connect(pass, self.timeout()).await.map(Session::Sqlite),
            }
        };
        timeout_at(deadline.into(), connect).await.unwrap_or_else(|_elapsed| {
            Err(SqlError::Unavailable(format!(
                "[database.{}] took no connection within {}",
                self.name,
                humantime::format_duration(self.timeout())
            )))
        })
    }

    pub(super) async fn run(
        &self,
        session: &mut Session,
        kind: Kind,
        statement: &str,
        parameters: &[Value],
        deadline: Instant,
    ) -> Result<Answer, SqlError> {
        let left = deadline.saturating_duration_since(Instant::now());
        match session {
            Session::Postgres(session) => session.run(statement, parameters, &self.bounds, left).await,
            Session::Sqlite(session) => {
                session.run(statement, parameters, &self.bounds, left, kind == Kind::Execute).await
            }
        }
    }

    fn waited(&self, what: &str, remedy: &str) -> SqlError {
        SqlError::Timeout(format!(
            "waited {} in vain for {what}: {remedy} of [database.{}] in pawl.toml",
            humantime::format_duration(self.timeout()),
            self.name
        ))
    }

    /// Removes old rows now and then, beside the calls: only while a connection is free.
    pub(super) fn clean(self: &Arc<Self>) {
        if !self.cleaning.is_due() || self.is_cleaning.swap(true, Ordering::Relaxed) {
            return;
        }
        let database = self.clone();
        tokio::spawn(async move {
            if let Ok(Err(e)) = timeout(CLEANING, database.remove_old()).await {
                tracing::warn!(target: "pawl::sql", database = database.name, "old steps were not removed: {e}");
            }
            database.is_cleaning.store(false, Ordering::Relaxed);
        });
    }

    async fn remove_old(&self) -> Result<(), SqlError> {
        loop {
            let Some(pass) = self.connections.enter(&Waits::default()).now_or_never() else { return Ok(()) };
            let removed = match &self.place {
                Place::Postgres(postgres) => postgres.connect(pass, CLEANING).await?.remove_old().await?,
                Place::Sqlite(file) => file.connect(pass, self.timeout()).await?.remove_old(self.timeout()).await?,
            };
            if removed < REMOVED_AT_ONCE {
                return Ok(());
            }
        }
    }
}

/// The transaction of one call on one database. Dropped before its end, it is undone.
pub(super) enum Session {
    Postgres(postgres_session::Session),
    Sqlite(sqlite_session::Session),
}

impl Session {
    /// Whether anything was written.
    pub(super) async fn wrote(&mut self, left: Duration) -> Result<bool, SqlError> {
        match self {
            Session::Postgres(session) => bounded(left, session.wrote()).await,
            Session::Sqlite(session) => Ok(session.wrote()),
        }
    }

    pub(super) async fn claim(
        &mut self,
        key: &str,
        outcome: &str,
        always: bool,
        left: Duration,
    ) -> Result<Claim, SqlError> {
        match self {
            Session::Postgres(session) => bounded(left, session.claim(key, outcome, always, left)).await,
            Session::Sqlite(session) => session.claim(key, outcome, always, left).await,
        }
    }

    /// An error leaves open whether it took effect.
    pub(super) async fn commit(self, left: Duration) -> Result<(), SqlError> {
        match self {
            Session::Postgres(session) => bounded(left, session.commit()).await,
            Session::Sqlite(session) => session.commit(left).await,
        }
    }

    pub(super) async fn roll_back(&mut self, left: Duration) {
        match self {
            Session::Postgres(session) => drop(timeout(left, session.roll_back()).await),
            Session::Sqlite(session) => session.roll_back(left).await,
        }
    }

    pub(super) async fn look_up(&mut self, key: &str, left: Duration) -> Result<Option<String>, SqlError> {
        match self {
            Session::Postgres(session) => bounded(left, session.look_up(key)).await,
            Session::Sqlite(session) => session.look_up(key, left).await,
        }
    }
}

async fn bounded<T>(left: Duration, what: impl Future<Output = Result<T, SqlError>>) -> Result<T, SqlError> {
    timeout(left, what).await.unwrap_or_else(|_elapsed| {
        Err(SqlError::Timeout(format!("the database did not answer within {}", humantime::format_duration(left))))
    })
}
