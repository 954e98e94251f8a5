//! The transaction of one call on SQLite. Each statement runs on a thread that may block, and is interrupted when it takes too long.

use super::answer::{Bounds, Growing};
use super::error::SqlError;
use super::postgres_session::Claim;
use super::sqlite::{Opened, Sqlite};
use super::steps::{KEPT_DAYS, REMOVED_AT_ONCE, TABLE};
use crate::plugin::bindings::sql::{Answer, Value};
use crate::plugin::gate::Pass;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, InterruptHandle, ToSql, ffi};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long an interrupted statement may take to notice.
const GRACE: Duration = Duration::from_secs(2);
const DAY_SECONDS: u32 = 24 * 3600;

/// A connection with the place that it takes among those allowed.
pub(super) struct Handle {
    opened: Opened,
    pass: Pass,
}

impl Handle {
    pub(super) fn new(opened: Opened, pass: Pass) -> Handle {
        Handle { opened, pass }
    }
}

/// A connection, and the transaction on it.
pub(super) struct Session {
    /// Absent while a thread has it, and once it was given up.
    handle: Option<Handle>,
    interrupt: Arc<InterruptHandle>,
    file: Arc<Sqlite>,
    begun: bool,
    wrote: bool,
}

impl Session {
    pub(super) fn new(handle: Handle, file: Arc<Sqlite>) -> Session {
        let interrupt = Arc::new(handle.opened.connection.get_interrupt_handle());
        Session { handle: Some(handle), interrupt, file, begun: false, wrote: false }
    }

    /// Runs one statement of the plugin's, in `left` of time. `writes`: whether it is expected to write, and should wait for other
    /// writers before it begins.
    pub(super) async fn run(
        &mut self,
        statement: &str,
        parameters: &[Value],
        bounds: &Bounds,
        left: Duration,
        writes: bool,
    ) -> Result<Answer, SqlError> {
        let begin = (!self.begun).then_some(if writes { "BEGIN IMMEDIATE" } else { "BEGIN" });
        self.begun = true;
        let (statement, parameters, bounds) = (statement.to_owned(), parameters.to_vec(), bounds.clone());
        let place = self.file.place().to_owned();
        let (result, wrote) = self
            .blocking(left, move |opened| {
                let _ = opened.connection.busy_timeout(left);
                if let Some(begin) = begin
                    && let Err(e) = opened.connection.execute_batch(begin)
                {
                    return (Err(fault(&place, &e)), false);
                }
                // What an answer that grew too large has changed by then is undone.
                if let Err(e) = opened.connection.execute_batch("SAVEPOINT pawl_statement") {
                    return (Err(fault(&place, &e)), false);
                }
                let mut wrote = false;
                let result = guarded(opened, |connection| {
                    attempt(connection, &place, &statement, &parameters, &bounds, &mut wrote)
                });
                let end = match &result {
                    Ok(_) => "RELEASE pawl_statement",
                    Err(_) => "ROLLBACK TO pawl_statement; RELEASE pawl_statement",
                };
                // Without a transaction there is no savepoint any more.
                match opened.connection.execute_batch(end) {
                    Err(e) if !opened.connection.is_autocommit() => (result.and(Err(fault(&place, &e))), wrote),
                    _ => (result, wrote),
                }
            })
            .await?;
        self.wrote |= wrote && result.is_ok();
        // Some errors end the transaction, and what was done before with it.
        if self.handle.as_ref().is_some_and(|handle| handle.opened.connection.is_autocommit()) {
            self.give_up();
        }
        result
    }

    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// See the session of PostgreSQL.
    pub(super) async fn claim(
        &mut self,
        key: &str,
        outcome: &str,
        always: bool,
        left: Duration,
    ) -> Result<Claim, SqlError> {
        if !(self.wrote || always) {
            return Ok(Claim::Nothing);
        }
        let (key, outcome, place) = (key.to_owned(), outcome.to_owned(), self.file.place().to_owned());
        self.blocking(left, move |opened| {
            let insert = format!("INSERT INTO {TABLE} (key, outcome) VALUES (?1, ?2)");
            match opened.connection.execute(&insert, [&key, &outcome]) {
                Ok(_) => Ok(Claim::Made),
                Err(e) if is_unique(&e) => Ok(Claim::Taken),
                Err(e) => Err(fault(&place, &e)),
            }
        })
        .await?
    }

    pub(super) async fn commit(mut self, left: Duration) -> Result<(), SqlError> {
        self.end("COMMIT", left).await
    }

    pub(super) async fn roll_back(&mut self, left: Duration) {
        if self.end("ROLLBACK", left).await.is_err() {
            self.give_up();
        }
    }

    async fn end(&mut self, how: &'static str, left: Duration) -> Result<(), SqlError> {
        if self.begun {
            let place = self.file.place().to_owned();
            self.blocking(left, move |opened| opened.connection.execute_batch(how).map_err(|e| fault(&place, &e)))
                .await??;
            self.begun = false;
        }
        Ok(())
    }

    pub(super) async fn look_up(&mut self, key: &str, left: Duration) -> Result<Option<String>, SqlError> {
        let (key, place) = (key.to_owned(), self.file.place().to_owned());
        self.blocking(left, move |opened| {
            let select = format!("SELECT outcome FROM {TABLE} WHERE key = ?1");
            match opened.connection.query_row(&select, [&key], |row| row.get(0)) {
                Ok(outcome) => Ok(Some(outcome)),
                Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
                Err(e) => Err(fault(&place, &e)),
            }
        })
        .await?
    }

    /// Removes some old rows; answers how many.
    pub(super) async fn remove_old(&mut self, left: Duration) -> Result<usize, SqlError> {
        let place = self.file.place().to_owned();
        self.blocking(left, move |opened| {
            let age = KEPT_DAYS * DAY_SECONDS;
            let delete = format!(
                "DELETE FROM {TABLE} WHERE key IN (SELECT key FROM {TABLE} WHERE at < unixepoch() - {age} LIMIT {REMOVED_AT_ONCE})"
            );
            opened.connection.execute(&delete, []).map_err(|e| fault(&place, &e))
        })
        .await?
    }

    /// Lends the connection to a thread.
    async fn blocking<T: Send + 'static>(
        &mut self,
        left: Duration,
        work: impl FnOnce(&mut Opened) -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        let Some(mut handle) = self.handle.take() else { return Err(self.given_up()) };
        // Whoever does not wait for the end any more has the work interrupted, and the connection closed by the thread.
        let interrupt = Interrupt(Some(self.interrupt.clone()));
        let mut thread = tokio::task::spawn_blocking(move || {
            let result = work(&mut handle.opened);
            (handle, result)
        });
        let ended = match tokio::time::timeout(left, &mut thread).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                self.interrupt.interrupt();
                match tokio::time::timeout(GRACE, &mut thread).await {
                    Ok(ended) => ended,
                    Err(_elapsed) => return Err(SqlError::Timeout(too_long(self.file.place()))),
                }
            }
        };
        interrupt.disarm();
        let (handle, result) =
            ended.map_err(|e| SqlError::Unavailable(format!("{} was left: {e}", self.file.place())))?;
        self.handle = Some(handle);
        Ok(result)
    }

    /// Closing the connection undoes what it did.
    fn give_up(&mut self) {
        if let Some(handle) = self.handle.take() {
            // It may wait for the disk.
            drop(tokio::task::spawn_blocking(move || drop(handle)));
        }
    }

    fn given_up(&self) -> SqlError {
        SqlError::Unavailable(format!(
            "the transaction on {} was given up after an earlier statement of this step; return a transient failure",
            self.file.place()
        ))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        match self.handle.take() {
            Some(Handle { opened, pass }) if !self.begun => {
                self.file.hand_back(opened);
                drop(pass);
            }
            Some(handle) => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    drop(runtime.spawn_blocking(move || drop(handle)));
                }
            }
            None => {}
        }
    }
}

/// Interrupts when it is dropped before its time.
struct Interrupt(Option<Arc<InterruptHandle>>);

impl Interrupt {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

/// Runs what a plugin wants under the authorizer.
fn guarded<T>(opened: &mut Opened, run: impl FnOnce(&mut Connection) -> T) -> T {
    opened.guarded.store(true, Ordering::Relaxed);
    let result = run(&mut opened.connection);
    opened.guarded.store(false, Ordering::Relaxed);
    result
}

fn attempt(
    connection: &mut Connection,
    place: &str,
    statement: &str,
    parameters: &[Value],
    bounds: &Bounds,
    wrote: &mut bool,
) -> Result<Answer, SqlError> {
    let fault = |e: rusqlite::Error| fault(place, &e);
    let mut statement = connection.prepare(statement).map_err(fault)?;
    // To SQLite `$1` is a name like any other, and its place that of its first use.
    let places: Vec<usize> = (1..=statement.parameter_count())
        .map(|place| {
            let name = statement.parameter_name(place).and_then(|name| name.get(1..)?.parse().ok());
            name.unwrap_or(place)
        })
        .collect();
    let (wanted, given) = (places.iter().copied().max().unwrap_or(0), parameters.len());
    if wanted != given {
        return Err(SqlError::refused("07001", format!("the statement has {wanted} parameters, {given} are given")));
    }
    for (index, place) in places.into_iter().enumerate() {
        let value = place.checked_sub(1).and_then(|place| parameters.get(place)).unwrap_or(&Value::Null);
        statement.raw_bind_parameter(index + 1, Parameter(value)).map_err(fault)?;
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let (width, reads) = (columns.len(), statement.readonly());
    *wrote = !reads;
    let mut growing = Growing::new(bounds, columns);
    let mut rows = statement.raw_query();
    let mut full = None;
    while let Some(row) = rows.next().map_err(fault)? {
        let values = (0..width).map(|index| row.get_ref(index).map(value)).collect::<Result<_, _>>().map_err(fault)?;
        if let Err(e) = growing.push(values) {
            full = Some(e);
            break;
        }
    }
    drop(rows);
    drop(statement);
    match full {
        None if reads => {
            let affected = growing.rows() as u64;
            Ok(growing.finish(affected))
        }
        None => Ok(growing.finish(connection.changes())),
        Some(full) => Err(full),
    }
}

/// A parameter as SQLite keeps it.
struct Parameter<'a>(&'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Boolean(value) => ValueRef::Integer((*value).into()),
            Value::S64(value) => ValueRef::Integer(*value),
            Value::F64(value) => ValueRef::Real(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

fn value(found: ValueRef<'_>) -> Value {
    match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::S64(value),
        ValueRef::Real(value) => Value::F64(value),
        // SQLite takes any bytes for a text.
        ValueRef::Text(value) => {
            String::from_utf8(value.to_vec()).map_or_else(|e| Value::Bytes(e.into_bytes()), Value::Text)
        }
        ValueRef::Blob(value) => Value::Bytes(value.to_vec()),
    }
}

/// What SQLite itself said; of a statement that it can't read the driver says so in a case of its own.
fn said(error: &rusqlite::Error) -> Option<&ffi::Error> {
    match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error),
        other => other.sqlite_error(),
    }
}

fn is_unique(error: &rusqlite::Error) -> bool {
    said(error)
        .is_some_and(|e| matches!(e.extended_code, ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE))
}

fn too_long(place: &str) -> String {
    format!("the statement took longer than `timeout` of {place} in pawl.toml")
}

/// An error of SQLite's in our words.
pub(super) fn fault(place: &str, error: &rusqlite::Error) -> SqlError {
    let message = error.to_string();
    let Some(found) = said(error) else { return SqlError::refused("42601", message) };
    match found.code {
        ErrorCode::OperationInterrupted => SqlError::Timeout(too_long(place)),
        ErrorCode::ConstraintViolation => {
            let code = match found.extended_code {
                ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_ROWID => {
                    "23505"
                }
                ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
                ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
                ffi::SQLITE_CONSTRAINT_CHECK => "23514",
                _ => "23000",
            };
            SqlError::Constraint { code: code.to_owned(), message }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => SqlError::Unavailable(format!(
            "{place} is locked by another writer, or has changed since this step began to read ({message}); begin a step that \
             writes with `execute`, and return a transient failure"
        )),
        ErrorCode::CannotOpen
        | ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::FileLockingProtocolFailed => SqlError::Unavailable(format!("{place} is not available: {message}")),
        ErrorCode::AuthorizationForStatementDenied => SqlError::refused(
            "0A000",
            "transactions, other files (ATTACH) and settings (PRAGMA) are not for plugins".to_owned(),
        ),
        _ => SqlError::Database { code: format!("SQLITE_{}", found.extended_code), message },
    }
}
