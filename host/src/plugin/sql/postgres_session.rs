//! The transaction of one call on PostgreSQL.

use super::answer::{Bounds, Growing};
use super::error::SqlError;
use super::postgres::{CLEAN, Postgres, Table};
use super::postgres_values::{Parameter, values};
use super::steps::{KEPT_DAYS, REMOVED_AT_ONCE};
use crate::causes::causes;
use crate::plugin::bindings::sql::{Answer, Value};
use crate::plugin::gate::Pass;
use deadpool_postgres::Object;
use futures::TryStreamExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{RowStream, Statement};

/// The server ends a statement that takes too long; if even that takes too long, the connection is given up.
const GRACE: Duration = Duration::from_secs(2);
const CANCEL: Duration = Duration::from_secs(5);
/// How long what is left of an answer is read although nobody wants it.
const SKIP: Duration = Duration::from_millis(100);
/// Prepared statements that a connection keeps. A plugin that writes its parameters into the text would keep any number.
const PREPARED: usize = 100;

/// A connection of the pool, and the transaction on it. Dropped before its end, it takes the connection with it.
pub(super) struct Session {
    /// Absent once it can't be told what state the connection is in.
    client: Option<Object>,
    server: Arc<Postgres>,
    table: Table,
    idle: Duration,
    /// Set before the transaction can have begun, reset when it has ended.
    begun: bool,
    /// Whether a statement has succeeded in it: what it did would be lost with the connection.
    answered: bool,
    /// The last field: others may connect when the connection is back.
    _pass: Pass,
}

/// What came of the attempt to note that a step took effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is noted; the rest is the commit.
    Made,
    /// Nothing was written, so there is nothing to note.
    Nothing,
    /// Another attempt of this step took effect before.
    Taken,
}

impl Session {
    pub(super) fn new(client: Object, server: Arc<Postgres>, table: Table, idle: Duration, pass: Pass) -> Session {
        Session { client: Some(client), server, table, idle, begun: false, answered: false, _pass: pass }
    }

    /// Runs one statement of the plugin's, in `left` of time. One that fails leaves no trace.
    pub(super) async fn run(
        &mut self,
        statement: &str,
        parameters: &[Value],
        bounds: &Bounds,
        left: Duration,
    ) -> Result<Answer, SqlError> {
        match timeout(left + GRACE, self.attempt(statement, parameters, bounds, left)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                self.give_up();
                Err(self.too_long(left))
            }
        }
    }

    async fn attempt(
        &mut self,
        statement: &str,
        parameters: &[Value],
        bounds: &Bounds,
        left: Duration,
    ) -> Result<Answer, SqlError> {
        let Some(client) = &self.client else { return Err(self.given_up()) };
        let begin = match self.begun {
            true => "RELEASE SAVEPOINT pawl_statement".to_owned(),
            false => format!("{CLEAN}; BEGIN; SET LOCAL idle_in_transaction_session_timeout = {}", millis(self.idle)),
        };
        let save = format!("{begin}; SET LOCAL statement_timeout = {}; SAVEPOINT pawl_statement", millis(left));
        if client.statement_cache.size() > PREPARED {
            client.statement_cache.clear();
        }
        let types: Vec<Type> = parameters.iter().map(|value| Parameter(value).declared()).collect();
        self.begun = true;
        // One after the other on the wire, without a wait in between.
        let (saved, prepared) =
            tokio::join!(client.batch_execute(&save), client.prepare_typed_cached(statement, &types));
        if let Err(e) = saved {
            let fault = self.fault(&e);
            self.give_up();
            return Err(fault);
        }
        let unfinished = match prepared {
            Ok(prepared) => match self.read(client, &prepared, parameters, bounds).await {
                Ok(answer) => {
                    self.answered = true;
                    return Ok(answer);
                }
                Err(unfinished) => unfinished,
            },
            Err(e) => Unfinished { fault: self.fault(&e), ready: true },
        };
        let undone = unfinished.ready && client.batch_execute("ROLLBACK TO SAVEPOINT pawl_statement").await.is_ok();
        if !undone {
            self.give_up();
        }
        Err(match unfinished.fault {
            SqlError::Timeout(_) => self.too_long(left),
            other => other,
        })
    }

    /// Runs a prepared statement.
    async fn read(
        &self,
        client: &Object,
        statement: &Statement,
        parameters: &[Value],
        bounds: &Bounds,
    ) -> Result<Answer, Unfinished> {
        let failed = |e: tokio_postgres::Error| Unfinished { fault: stale(client, self.fault(&e)), ready: true };
        let (wanted, given) = (statement.params().len(), parameters.len());
        if wanted != given {
            let fault = format!("the statement has {wanted} parameters, {given} are given");
            return Err(Unfinished { fault: SqlError::refused("07001", fault), ready: true });
        }
        let parameters: Vec<Parameter<'_>> = parameters.iter().map(Parameter).collect();
        let stream = client.query_raw(statement, parameters).await.map_err(failed)?;
        let mut stream = pin!(stream);
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        let mut growing = Growing::new(bounds, columns);
        while let Some(row) = stream.as_mut().try_next().await.map_err(failed)? {
            let values = values(&row).map_err(|fault| SqlError::refused("0A000", fault));
            if let Err(fault) = values.and_then(|row| growing.push(row)) {
                return Err(Unfinished { fault, ready: self.skip(stream, client).await });
            }
        }
        let affected = stream.rows_affected().unwrap_or_default();
        Ok(growing.finish(affected))
    }

    /// Passes over what is left of an answer that nobody wants: reads to its end where that is near, else cancels the statement.
    /// Whether the connection is ready for the next one then: a cancellation that came too late might hit that.
    async fn skip(&self, mut stream: Pin<&mut RowStream>, client: &Object) -> bool {
        let mut rest = async || loop {
            match stream.as_mut().try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(e) => return Some(e),
            }
        };
        if timeout(SKIP, rest()).await.is_ok() {
            return true;
        }
        let cancelled = timeout(CANCEL, client.cancel_token().cancel_query(self.server.tls())).await;
        cancelled.is_ok_and(|sent| sent.is_ok())
            && rest().await.is_some_and(|e| e.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// Whether anything was written, or locked so as to be written.
    pub(super) async fn wrote(&self) -> Result<bool, SqlError> {
        if !self.answered {
            return Ok(false);
        }
        let client = self.client.as_ref().ok_or_else(|| self.given_up())?;
        let row = client.query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[]).await;
        row.and_then(|row| row.try_get(0)).map_err(|e| self.fault(&e))
    }

    /// Notes that the step took effect, if anything was written or `always`. Waits for another attempt that is about to do the same.
    pub(super) async fn claim(
        &self,
        key: &str,
        outcome: &str,
        always: bool,
        left: Duration,
    ) -> Result<Claim, SqlError> {
        if !(self.answered || always) {
            return Ok(Claim::Nothing);
        }
        let client = self.client.as_ref().ok_or_else(|| self.given_up())?;
        let table = match &self.table {
            Table::There(name) => name,
            Table::Missing { reason, .. } => {
                // Who only reads needs no table.
                return match self.wrote().await? {
                    true => Err(SqlError::Unavailable(reason.to_string())),
                    false => Ok(Claim::Nothing),
                };
            }
        };
        let insert = format!(
            "INSERT INTO {table} (key, outcome) SELECT $1::text, $2::text WHERE $3::boolean OR \
             pg_current_xact_id_if_assigned() IS NOT NULL"
        );
        let limit = format!("SET LOCAL statement_timeout = {}", millis(left));
        let parameters: [&(dyn ToSql + Sync); 3] = [&key, &outcome, &always];
        let (limited, inserted) = tokio::join!(client.batch_execute(&limit), client.execute(&insert, &parameters));
        limited.map_err(|e| self.fault(&e))?;
        match inserted {
            Ok(0) => Ok(Claim::Nothing),
            Ok(_) => Ok(Claim::Made),
            Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(Claim::Taken),
            Err(e) => {
                // It may have been dropped.
                self.server.forget_table();
                Err(self.fault(&e))
            }
        }
    }

    /// An error leaves open whether it took effect.
    pub(super) async fn commit(mut self) -> Result<(), SqlError> {
        let client = self.client.as_ref().ok_or_else(|| self.given_up())?;
        if self.begun {
            client.batch_execute("COMMIT").await.map_err(|e| self.fault(&e))?;
        }
        self.begun = false;
        Ok(())
    }

    /// Undoes everything. What fails here the server undoes itself, with the connection.
    pub(super) async fn roll_back(&mut self) {
        if let Some(client) = &self.client
            && self.begun
        {
            match client.batch_execute("ROLLBACK").await {
                Ok(()) => self.begun = false,
                Err(_) => self.give_up(),
            }
        }
    }

    /// The outcome that is stored under a key.
    pub(super) async fn look_up(&self, key: &str) -> Result<Option<String>, SqlError> {
        let client = self.client.as_ref().ok_or_else(|| self.given_up())?;
        let Table::There(table) = &self.table else { return Ok(None) };
        self.clean(client).await?;
        let rows = client.query(&format!("SELECT outcome FROM {table} WHERE key = $1"), &[&key]).await;
        let rows = rows.map_err(|e| self.fault(&e))?;
        rows.first().map(|row| row.try_get(0).map_err(|e| self.fault(&e))).transpose()
    }

    /// Removes some old rows; answers how many. Rows that another worker is removing are its own.
    pub(super) async fn remove_old(&self) -> Result<usize, SqlError> {
        let client = self.client.as_ref().ok_or_else(|| self.given_up())?;
        let Table::There(table) = &self.table else { return Ok(0) };
        self.clean(client).await?;
        let delete = format!(
            "DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE at < now() - interval '{KEPT_DAYS} days' \
             LIMIT {REMOVED_AT_ONCE} FOR UPDATE SKIP LOCKED)"
        );
        let removed = client.execute(&delete, &[]).await.map_err(|e| self.fault(&e))?;
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    /// Before a statement of our own, outside of a transaction.
    async fn clean(&self, client: &Object) -> Result<(), SqlError> {
        if self.begun { Ok(()) } else { client.batch_execute(CLEAN).await.map_err(|e| self.fault(&e)) }
    }

    /// The connection is closed, and what it does is cancelled.
    fn give_up(&mut self) {
        let Some(client) = self.client.take() else { return };
        let (cancel, tls) = (client.cancel_token(), self.server.tls());
        drop(Object::take(client));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The server would notice the closed connection only when the statement has ended.
            runtime.spawn(timeout(CANCEL, async move { cancel.cancel_query(tls).await }));
        }
    }

    fn given_up(&self) -> SqlError {
        SqlError::Unavailable(format!(
            "the connection to {} was given up after an earlier statement of this step; return a transient failure",
            self.server.place()
        ))
    }

    fn fault(&self, error: &tokio_postgres::Error) -> SqlError {
        fault(self.server.place(), error)
    }

    fn too_long(&self, left: Duration) -> SqlError {
        SqlError::Timeout(format!(
            "the statement took longer than {} (`timeout` of {} in pawl.toml)",
            humantime::format_duration(Duration::from_millis(millis(left))),
            self.server.place()
        ))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.begun {
            self.give_up();
        }
    }
}

/// A statement that gave no answer.
struct Unfinished {
    fault: SqlError,
    /// Whether the connection is ready for the next statement.
    ready: bool,
}

/// A statement that was prepared before a change of the schema is prepared anew the next time.
fn stale(client: &Object, fault: SqlError) -> SqlError {
    if let SqlError::Database { code, message } = &fault
        && (message.contains("cached plan") || code == SqlState::INVALID_SQL_STATEMENT_NAME.code())
    {
        client.statement_cache.clear();
        return SqlError::Unavailable(format!("the schema has changed ({message}); try again"));
    }
    fault
}

/// An error of the driver's in our words.
pub(super) fn fault(place: &str, error: &tokio_postgres::Error) -> SqlError {
    let Some(found) = error.as_db_error() else {
        return SqlError::Unavailable(format!("{place} can't be reached: {}", causes(error)));
    };
    let (code, message) = (found.code().code().to_owned(), found.message().to_owned());
    match code.get(..2) {
        _ if *found.code() == SqlState::QUERY_CANCELED => SqlError::Timeout(message),
        Some("23") => SqlError::Constraint { code, message },
        // Connections, resources, and what an operator does to a server.
        Some("08" | "53" | "57" | "58") => {
            SqlError::Unavailable(format!("{place} is not available: {message} ({code})"))
        }
        _ => SqlError::Database { code, message },
    }
}

/// For the server, to which 0 would mean no limit.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, i32::MAX as u64)
}
