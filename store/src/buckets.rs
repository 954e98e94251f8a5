//! Reads keys and values of buckets, and the outcomes of what is done once.

use crate::protocol::Reply;
use crate::protocol::keyvalue::{Done, Entry, FindOutcome, Get, Got, KEY_OVERHEAD, List, Listed, PAGE, Value};
use crate::view::{Sql, View};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;

/// When so many bytes of values are read, an answer has enough.
const ENOUGH: usize = 1 << 20;

impl View<'_> {
    pub fn get_keys(&self, get: &Get) -> Sql<Reply> {
        let mut entry = self.connection.prepare_cached(
            "SELECT e.version, CASE WHEN ?3 THEN e.value END FROM kv_entries e JOIN kv_buckets b ON b.id = e.bucket \
             WHERE b.name = ?1 AND e.key = ?2",
        )?;
        let mut entries = Vec::with_capacity(get.keys.len());
        let mut bytes = 0;
        for key in &get.keys {
            if bytes >= ENOUGH {
                break;
            }
            let found = entry
                .query_row(params![get.bucket, key, get.values], |row| {
                    Ok(Entry { version: row.get(0)?, value: row.get::<_, Option<Vec<u8>>>(1)?.map(Value) })
                })
                .optional()?
                .unwrap_or(Entry { version: 0, value: None });
            bytes += KEY_OVERHEAD + found.value.as_ref().map_or(0, |value| value.0.len());
            entries.push(found);
        }
        Ok(reply(&Got { entries }))
    }

    pub fn list_keys(&self, list: &List) -> Sql<Reply> {
        let limit = list.limit.unwrap_or(PAGE).clamp(1, PAGE);
        let after = list.cursor.map_or(0, |cursor| i64::try_from(cursor).unwrap_or(i64::MAX));
        let mut page = self.connection.prepare_cached(
            "SELECT e.seq, e.key FROM kv_entries e WHERE e.bucket = (SELECT id FROM kv_buckets WHERE name = ?1) AND e.seq > ?2 \
             ORDER BY e.seq LIMIT ?3",
        )?;
        let rows: Vec<(i64, String)> = page
            .query_map(params![list.bucket, after, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Sql<_>>()?;
        let last = rows.last().filter(|_| rows.len() == limit as usize).map(|(seq, _)| seq.unsigned_abs());
        Ok(reply(&Listed { cursor: last, keys: rows.into_iter().map(|(_, key)| key).collect() }))
    }

    pub fn find_outcome(&self, find: &FindOutcome) -> Sql<Reply> {
        Ok(reply(&Done { outcome: self.outcome(&find.key)? }))
    }

    pub fn outcome(&self, key: &str) -> Sql<Option<String>> {
        let mut outcome = self.connection.prepare_cached("SELECT outcome FROM kv_outcomes WHERE key = ?1")?;
        outcome.query_row([key], |row| row.get(0)).optional()
    }
}

/// The answer to a request that was served.
pub fn reply(answer: &impl Serialize) -> Reply {
    match serde_json::to_string(answer) {
        Ok(data) => Reply::ok(data),
        Err(e) => Reply::error(500, format!("the answer can't be written: {e}")),
    }
}
