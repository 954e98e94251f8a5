//! Searches: read beside the writer, page by page.

use crate::protocol::{Reply, Search, SearchOf};
use crate::rows::{PROMISE_COLUMNS, PROMISE_STATES, Promise, TASK_COLUMNS, TASK_STATES, Task};
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that one page looks at, matching or not: it may come out short, or empty, with a cursor to go on from.
const LOOKED_AT: usize = 20_000;

/// Runs a search off the async threads.
pub async fn run(reader: Arc<Mutex<Connection>>, search: Search) -> Reply {
    let read = move || {
        let connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
        match search.of {
            SearchOf::Promises => promises(&connection, &search),
            SearchOf::Tasks => tasks(&connection, &search),
        }
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(e)) => Reply::error(503, format!("the store can't read: {e}")),
        Err(e) => Reply::error(500, e.to_string()),
    }
}

fn number(state: Option<&str>, names: &[&str]) -> Result<Option<usize>, Reply> {
    let Some(name) = state else { return Ok(None) };
    let found = names.iter().position(|known| *known == name);
    found.map(Some).ok_or_else(|| Reply::error(400, format!("`state` is `{name}`; it is one of {}", names.join(", "))))
}

fn promises(connection: &Connection, search: &Search) -> rusqlite::Result<Reply> {
    let state = match number(search.state.as_deref(), &PROMISE_STATES) {
        Ok(state) => state.map(|state| state as i64),
        Err(reply) => return Ok(reply),
    };
    let origin = search.tags.get("resonate:origin").and_then(Value::as_str);
    // One origin is found by its index; otherwise the table is walked in its order.
    let by_origin = if origin.is_some() { "origin = ?4" } else { "?4 IS NULL" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {PROMISE_COLUMNS}, seq FROM promises WHERE seq > ?1 AND (?2 IS NULL OR state = ?2) AND {by_origin} \
         ORDER BY seq LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![search.cursor.unwrap_or(0), state, LOOKED_AT as i64, origin])?;
    let mut records = Vec::new();
    let mut last = 0;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        let promise = Promise::read(row)?;
        last = row.get(10)?;
        looked_at += 1;
        if has_tags(&promise.tags, &search.tags) {
            records.push(promise.record());
            if records.len() == search.limit {
                break;
            }
        }
    }
    let cursor = cursor(records.len() == search.limit || looked_at == LOOKED_AT, last);
    Ok(Reply::ok(format!(r#"{{"promises":[{}],"cursor":{cursor}}}"#, records.join(","))))
}

fn tasks(connection: &Connection, search: &Search) -> rusqlite::Result<Reply> {
    let state = match number(search.state.as_deref(), &TASK_STATES) {
        Ok(state) => state.map(|state| state as i64),
        Err(reply) => return Ok(reply),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {TASK_COLUMNS}, seq FROM tasks WHERE seq > ?1 AND (?2 IS NULL OR state = ?2) ORDER BY seq LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![search.cursor.unwrap_or(0), state, search.limit as i64])?;
    let mut records = Vec::new();
    let mut last: i64 = 0;
    while let Some(row) = rows.next()? {
        records.push(Task::read(row)?.record());
        last = row.get(7)?;
    }
    let cursor = cursor(records.len() == search.limit, last);
    Ok(Reply::ok(json!({"tasks": records, "cursor": cursor}).to_string()))
}

fn cursor(more: bool, last: i64) -> Value {
    if more { Value::from(last.to_string()) } else { Value::Null }
}

fn has_tags(tags: &str, wanted: &Map<String, Value>) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let Ok(Value::Object(tags)) = serde_json::from_str(tags) else { return false };
    wanted.iter().all(|(name, value)| tags.get(name) == Some(value))
}
