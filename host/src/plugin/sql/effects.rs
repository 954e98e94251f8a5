//! What one call does to databases and buckets: it takes effect together with the call's outcome, and once.

use super::database::Session;
use super::error::SqlError;
use super::postgres_session::Claim;
use super::steps;
use crate::fail_point::reached;
use crate::plugin::bindings::sql::{Answer, Value};
use crate::plugin::contract::{Failure, Outcome};
use crate::plugin::gate::Waits;
use crate::plugin::grants::Grants;
use crate::plugin::keyvalue::{BucketsError, Changes};
use crate::plugin::output::Source;
use pawl_store::keyvalue::Once;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call computes between two statements, and the host ends it: only a worker that stands still is idle for longer.
const IDLE_GRACE: Duration = Duration::from_secs(5);

/// What a plugin says of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Kind {
    Query,
    Execute,
}

/// The transactions of one call, and its changes of buckets. Dropped before they are settled, they are undone.
pub(in crate::plugin) struct Effects {
    pub(in crate::plugin) grants: Arc<Grants>,
    pub(in crate::plugin) source: Arc<Source>,
    pub(in crate::plugin) waits: Waits,
    pub(in crate::plugin) keyvalue: Changes,
    sessions: BTreeMap<String, Session>,
}

/// Why the outcome of a call did not take effect, and nothing of the call did.
#[derive(Debug)]
pub(in crate::plugin) enum Undone {
    Failed(Failure),
    /// What it had read in a bucket was changed beside it: it may be called again at once.
    Conflict(String),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Undone {
        Undone::Failed(failure)
    }
}

impl Effects {
    pub(in crate::plugin) fn new(grants: &Arc<Grants>, source: &Arc<Source>, waits: &Waits) -> Effects {
        Effects {
            grants: grants.clone(),
            source: source.clone(),
            waits: waits.clone(),
            keyvalue: Changes::default(),
            sessions: BTreeMap::new(),
        }
    }

    /// What there is so far, if there can be anything to settle; nothing remains.
    pub(in crate::plugin) fn take(&mut self) -> Option<Effects> {
        let (sessions, keyvalue) = (std::mem::take(&mut self.sessions), std::mem::take(&mut self.keyvalue));
        // An earlier attempt may have written to a bucket though this one did not.
        let any = !sessions.is_empty() || !keyvalue.is_empty() || self.grants.keyvalue.is_allowed();
        let (grants, source, waits) = (&self.grants, &self.source, &self.waits);
        any.then(|| Effects {
            grants: grants.clone(),
            source: source.clone(),
            waits: waits.clone(),
            keyvalue,
            sessions,
        })
    }

    /// Runs one statement.
    pub(in crate::plugin) async fn run(
        &mut self,
        kind: Kind,
        database: &str,
        statement: &str,
        parameters: &[Value],
    ) -> Result<Answer, SqlError> {
        let result = self.attempt(kind, database, statement, parameters).await;
        if let Err(e) = &result {
            let Source { route, workflow, plugin, step } = self.source.as_ref();
            let (route, plugin) = (route.as_ref(), plugin.as_ref());
            if e.is_operational() {
                tracing::warn!(target: "pawl::sql", route, workflow, plugin, step, database, "statement failed: {e}");
            } else {
                tracing::debug!(target: "pawl::sql", route, workflow, plugin, step, database, "statement failed: {e}");
            }
        }
        result
    }

    async fn attempt(
        &mut self,
        kind: Kind,
        name: &str,
        statement: &str,
        parameters: &[Value],
    ) -> Result<Answer, SqlError> {
        let database = self.grants.sql.get(name)?.clone();
        super::statement::check(statement)?;
        if kind == Kind::Execute {
            self.refuse_second(name).await?;
        }
        let deadline = Instant::now() + database.timeout();
        database.take_turn(deadline, &self.waits).await?;
        // Out of reach while the statement runs: if that is cut off, the transaction is lost with it.
        let mut session = match self.sessions.remove(name) {
            Some(session) => session,
            None => {
                let idle = self.grants.limits.time.saturating_add(IDLE_GRACE);
                database.connect(deadline, idle, &self.waits).await?
            }
        };
        let result = database.run(&mut session, kind, statement, parameters, deadline).await;
        self.sessions.insert(name.to_owned(), session);
        result
    }

    /// There is no transaction over two databases.
    async fn refuse_second(&mut self, name: &str) -> Result<(), SqlError> {
        if self.keyvalue.wrote() {
            return Err(SqlError::SecondDatabase(format!(
                "this step has written to a bucket: it can't write to `{name}` too, there is no transaction over both; do that in \
                 the next step"
            )));
        }
        for (other, session) in self.sessions.iter_mut().filter(|(other, _)| *other != name) {
            if session.wrote(left(&self.grants, other)).await? {
                return Err(SqlError::SecondDatabase(format!(
                    "this step has written to the database `{other}`: it can't write to `{name}` too, there is no transaction \
                     over both; do that in the next step"
                )));
            }
        }
        Ok(())
    }

    /// Nor one over a database and a bucket.
    pub(in crate::plugin) async fn refuse_bucket(&mut self) -> Result<(), String> {
        // What is written afterwards is refused in its turn.
        if self.keyvalue.wrote() {
            return Ok(());
        }
        for (name, session) in &mut self.sessions {
            if session.wrote(left(&self.grants, name)).await.map_err(|e| e.to_string())? {
                return Err(format!(
                    "this step has written to the database `{name}`: it can't write to a bucket too, there is no transaction over \
                     both; do that in the next step"
                ));
            }
        }
        Ok(())
    }

    /// Makes an outcome and what was done for it take effect, or undoes it all. `again`: the step was begun before, so another
    /// attempt may still be under way somewhere, which from now on must not take effect beside this one.
    pub(in crate::plugin) async fn settle(
        mut self,
        result: Result<Outcome, Failure>,
        key: &str,
        again: bool,
    ) -> Result<Outcome, Undone> {
        // An earlier attempt may have written to a bucket though this one did not.
        let noted = again && self.grants.keyvalue.is_allowed();
        if self.sessions.is_empty() && self.keyvalue.is_empty() && !noted {
            return result.map_err(Undone::from);
        }
        let settled = match result {
            Ok(outcome) => self.commit(outcome, key, again).await,
            Err(failure) => Err(failure.into()),
        };
        for (name, mut session) in std::mem::take(&mut self.sessions) {
            session.roll_back(left(&self.grants, &name)).await;
        }
        settled
    }

    async fn commit(&mut self, outcome: Outcome, key: &str, again: bool) -> Result<Outcome, Undone> {
        let chosen = match self.choose(key, again).await? {
            Chosen::Database(name) => name,
            Chosen::Buckets => return self.apply(outcome, key).await,
            Chosen::Nothing => return Ok(outcome),
            Chosen::Stored(stored) => return Ok(stored),
        };
        let Some(mut session) = self.sessions.remove(&chosen) else { return Ok(outcome) };
        let patience = left(&self.grants, &chosen);
        let lost = |e: SqlError| transient(format!("what the plugin did in the database `{chosen}` was undone: {e}"));
        match session.claim(key, &steps::encode(&outcome), again, patience).await.map_err(lost)? {
            // The session goes back to be rolled back, which costs less than a new connection.
            Claim::Nothing => {
                self.sessions.insert(chosen, session);
                return Ok(outcome);
            }
            Claim::Taken => {
                session.roll_back(patience).await;
                let stored = session.look_up(key, patience).await.map_err(lost)?;
                let Some(stored) = stored else {
                    return Err(
                        lost(SqlError::Unavailable("another attempt of the step was under way".to_owned())).into()
                    );
                };
                return Ok(steps::decode(key, &stored).map_err(transient)?);
            }
            Claim::Made => {}
        }
        reached("sql.before-commit");
        session.commit(patience).await.map_err(|e| {
            transient(format!("whether the changes in the database `{chosen}` took effect is not known, the next attempt will see: {e}"))
        })?;
        reached("sql.after-commit");
        if let Ok(database) = self.grants.sql.get(&chosen) {
            database.clean();
        }
        Ok(outcome)
    }

    /// Makes the changes of buckets take effect, or notes at least that this attempt came first.
    async fn apply(&mut self, outcome: Outcome, key: &str) -> Result<Outcome, Undone> {
        let once = Once { key: key.to_owned(), owner: self.source.workflow.clone(), outcome: steps::encode(&outcome) };
        let request = std::mem::take(&mut self.keyvalue).into_request(once);
        reached("keyvalue.before-apply");
        let applied = self.grants.keyvalue.apply(request).await;
        if applied.is_ok() {
            reached("keyvalue.after-apply");
        }
        match applied {
            Ok(None) => Ok(outcome),
            Ok(Some(stored)) => Ok(stored_outcome(key, &stored)?),
            Err(BucketsError::Conflict(reason)) => Err(Undone::Conflict(reason)),
            Err(BucketsError::Refused(reason)) => {
                Err(transient(format!("what the plugin did in its buckets was undone: {reason}")).into())
            }
            Err(BucketsError::Unavailable(reason)) => Err(transient(format!(
                "whether the changes in the plugin's buckets took effect is not known, the next attempt will see: {reason}"
            ))
            .into()),
        }
    }

    /// Where what the call did takes effect.
    async fn choose(&mut self, key: &str, again: bool) -> Result<Chosen, Failure> {
        let mut names: Vec<String> = self.sessions.keys().cloned().collect();
        if self.keyvalue.wrote() {
            return self.choose_buckets(key, again).await;
        }
        if again
            && self.grants.keyvalue.is_allowed()
            && let Some(stored) = self.grants.keyvalue.outcome(key).await.map_err(unknown_in_buckets)?
        {
            return stored_outcome(key, &stored).map(Chosen::Stored);
        }
        if names.is_empty() {
            return Ok(if again { Chosen::Buckets } else { Chosen::Nothing });
        }
        if names.len() == 1 {
            // Whether it wrote shows when the step is noted.
            return Ok(names.pop().map_or(Chosen::Nothing, Chosen::Database));
        }
        let mut written = Vec::new();
        for name in &names {
            let patience = left(&self.grants, name);
            let Some(session) = self.sessions.get_mut(name) else { continue };
            let lost = |e: SqlError| transient(format!("what the plugin did in the database `{name}` was undone: {e}"));
            if session.wrote(patience).await.map_err(lost)? {
                written.push(name.clone());
            } else if again && let Some(stored) = session.look_up(key, patience).await.map_err(lost)? {
                // Of an attempt that took effect while this one ran, which is why this one found nothing to do there.
                return steps::decode(key, &stored).map(Chosen::Stored).map_err(transient);
            }
        }
        match written.len() {
            0 if again => Ok(names.into_iter().next().map_or(Chosen::Nothing, Chosen::Database)),
            0 => Ok(Chosen::Nothing),
            1 => Ok(written.pop().map_or(Chosen::Nothing, Chosen::Database)),
            _ => Err(Failure::Permanent {
                reason: format!(
                    "the plugin wrote to the databases {} in one step, and there is no transaction over both: nothing was changed; \
                     write to one in each step, and use `execute` for what writes",
                    written.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
                ),
            }),
        }
    }
}

impl Effects {
    /// Buckets were written to: then no database was.
    async fn choose_buckets(&mut self, key: &str, again: bool) -> Result<Chosen, Failure> {
        for (name, session) in &mut self.sessions {
            let patience = left(&self.grants, name);
            let lost = |e: SqlError| transient(format!("what the plugin did in the database `{name}` was undone: {e}"));
            if session.wrote(patience).await.map_err(lost)? {
                return Err(Failure::Permanent {
                    reason: format!(
                        "the plugin wrote to the database `{name}` and to a bucket in one step, and there is no transaction over \
                         both: nothing was changed; write to one in each step, and use `execute` for what writes"
                    ),
                });
            }
            if again && let Some(stored) = session.look_up(key, patience).await.map_err(lost)? {
                return steps::decode(key, &stored).map(Chosen::Stored).map_err(transient);
            }
        }
        Ok(Chosen::Buckets)
    }
}

fn unknown_in_buckets(e: BucketsError) -> Failure {
    transient(format!("whether an earlier attempt took effect in a bucket is not known: {e}"))
}

/// What the store of buckets has kept.
fn stored_outcome(key: &str, stored: &str) -> Result<Outcome, Failure> {
    serde_json::from_str(stored).map_err(|e| {
        transient(format!("what the store of keys and values keeps under `{key}` is no outcome of a step: {e}"))
    })
}

/// How long each step of a transaction's end may take.
fn left(grants: &Grants, name: &str) -> Duration {
    grants.sql.get(name).map_or(Duration::ZERO, |database| database.timeout())
}

enum Chosen {
    Database(String),
    Buckets,
    Nothing,
    Stored(Outcome),
}

fn transient(reason: String) -> Failure {
    Failure::Transient { reason, after_ms: None }
}

impl Grants {
    /// The outcome of an earlier attempt of a step, if one took effect in a database or a bucket that the route allows. An error is a failure of
    /// the step.
    pub async fn took_effect(&self, step_key: &str, run: u64) -> Result<Option<Outcome>, Failure> {
        let key = steps::key(step_key, run);
        for database in self.sql.all() {
            let failed = |e: SqlError| {
                let name = database.name();
                transient(format!("whether an earlier attempt took effect in the database `{name}` is not known: {e}"))
            };
            let (patience, waits) = (database.timeout(), Waits::default());
            let mut session = database.connect(Instant::now() + patience, patience, &waits).await.map_err(failed)?;
            if let Some(stored) = session.look_up(&key, patience).await.map_err(failed)? {
                return steps::decode(&key, &stored).map(Some).map_err(transient);
            }
        }
        if self.keyvalue.is_allowed()
            && let Some(stored) = self.keyvalue.outcome(&key).await.map_err(unknown_in_buckets)?
        {
            return stored_outcome(&key, &stored).map(Some);
        }
        Ok(None)
    }
}
