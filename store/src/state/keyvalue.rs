//! Changes keys and values of buckets, all that one request asks for or nothing, and keeps the outcomes of what is done once.

use super::State;
use crate::buckets::reply;
use crate::protocol::Reply;
use crate::protocol::keyvalue::{Apply, Bucket, Done, Once};
use crate::view::Sql;
use rusqlite::{OptionalExtension, params};

/// A bucket as it is, and what it will hold.
struct Plan<'a> {
    bucket: &'a Bucket,
    /// Absent: nothing was ever written to it.
    id: Option<i64>,
    version: i64,
    keys: i64,
    bytes: i64,
}

impl State<'_> {
    pub(super) fn apply(&mut self, apply: &Apply) -> Sql<Reply> {
        if let Some(once) = &apply.once {
            if let Some(outcome) = self.view.outcome(&once.key)? {
                return Ok(reply(&Done { outcome: Some(outcome) }));
            }
            if !self.is_pending_root(&once.owner)? {
                let message = format!("`once.owner`: there is no pending root promise `{}`", once.owner);
                return Ok(Reply::error(404, message));
            }
        }
        // Everything is looked at before anything is written.
        let mut plans = Vec::with_capacity(apply.buckets.len());
        for bucket in &apply.buckets {
            match self.plan(bucket)? {
                Ok(plan) => plans.push(plan),
                Err(refused) => return Ok(refused),
            }
        }
        for plan in plans.iter().filter(|plan| !plan.bucket.write.is_empty()) {
            self.write_bucket(plan)?;
        }
        if let Some(Once { key, owner, outcome }) = &apply.once {
            self.view
                .connection
                .prepare_cached("INSERT INTO kv_outcomes (key, owner, outcome) VALUES (?1, ?2, ?3)")?
                .execute([key, owner, outcome])?;
        }
        Ok(reply(&Done { outcome: None }))
    }

    fn is_pending_root(&self, id: &str) -> Sql<bool> {
        self.view
            .connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM promises WHERE id = ?1 AND origin = id AND state = 0 AND timeout_at > ?2)",
            )?
            .query_row(params![id, self.view.now], |row| row.get(0))
    }

    /// What comes of a bucket, or why not.
    fn plan<'b>(&self, bucket: &'b Bucket) -> Sql<Result<Plan<'b>, Reply>> {
        let known = self
            .view
            .connection
            .prepare_cached("SELECT id, version, keys, bytes FROM kv_buckets WHERE name = ?1")?
            .query_row([&bucket.bucket], |row| {
                Ok::<(i64, i64, i64, i64), _>((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let (id, version, keys, bytes) = match known {
            Some((id, version, keys, bytes)) => (Some(id), version, keys, bytes),
            None => (None, 0, 0, 0),
        };
        let mut entry = self
            .view
            .connection
            .prepare_cached("SELECT version, length(value) FROM kv_entries WHERE bucket = ?1 AND key = ?2")?;
        let mut stored = |key: &str| -> Sql<Option<(i64, i64)>> {
            let Some(id) = id else { return Ok(None) };
            entry.query_row(params![id, key], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        };
        for (key, read) in &bucket.read {
            let now = stored(key)?.map_or(0, |(version, _)| version);
            if now != *read {
                let message = format!("`{key}` in bucket `{}` was changed after it had been read", bucket.bucket);
                return Ok(Err(Reply::error(409, message)));
            }
        }
        let mut plan = Plan { bucket, id, version, keys, bytes };
        for (key, value) in &bucket.write {
            if let Some((_, length)) = stored(key)? {
                plan.keys -= 1;
                plan.bytes -= length + key.len() as i64;
            }
            if let Some(value) = value {
                plan.keys += 1;
                plan.bytes += (key.len() + value.0.len()) as i64;
            }
        }
        let too_many =
            |now: i64, before: i64, most: Option<u64>| most.filter(|most| now > before && now.unsigned_abs() > *most);
        let refused = |would: i64, what: &str, most: u64| {
            let message = format!("bucket `{}` would hold {would} {what}; {most} at most are allowed", bucket.bucket);
            Ok(Err(Reply::error(422, message)))
        };
        if let Some(most) = too_many(plan.keys, keys, bucket.most_keys) {
            return refused(plan.keys, "keys", most);
        }
        if let Some(most) = too_many(plan.bytes, bytes, bucket.most_bytes) {
            return refused(plan.bytes, "bytes", most);
        }
        Ok(Ok(plan))
    }

    fn write_bucket(&self, plan: &Plan<'_>) -> Sql<()> {
        let connection = self.view.connection;
        let version = plan.version + 1;
        let id = match plan.id {
            Some(id) => {
                connection
                    .prepare_cached("UPDATE kv_buckets SET version = ?2, keys = ?3, bytes = ?4 WHERE id = ?1")?
                    .execute([id, version, plan.keys, plan.bytes])?;
                id
            }
            None => {
                connection
                    .prepare_cached("INSERT INTO kv_buckets (name, version, keys, bytes) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![plan.bucket.bucket, version, plan.keys, plan.bytes])?;
                connection.last_insert_rowid()
            }
        };
        let mut set = connection.prepare_cached(
            "INSERT INTO kv_entries (bucket, key, version, value) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (bucket, key) DO UPDATE SET version = excluded.version, value = excluded.value",
        )?;
        let mut remove = connection.prepare_cached("DELETE FROM kv_entries WHERE bucket = ?1 AND key = ?2")?;
        for (key, value) in &plan.bucket.write {
            match value {
                Some(value) => set.execute(params![id, key, version, value.0])?,
                None => remove.execute(params![id, key])?,
            };
        }
        Ok(())
    }

    /// Removes outcomes that belong to a root. True when there are none left.
    pub(super) fn remove_outcomes(&self, owner: &str, left: &mut usize) -> Sql<bool> {
        let removed = self
            .view
            .connection
            .prepare_cached(
                "DELETE FROM kv_outcomes WHERE seq IN (SELECT seq FROM kv_outcomes WHERE owner = ?1 LIMIT ?2)",
            )?
            .execute(params![owner, *left as i64])?;
        let complete = removed < *left;
        *left -= removed;
        Ok(complete)
    }
}
