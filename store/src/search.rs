//! Searches, page by page, in the order of creation.

use crate::protocol::{Reply, Search, SearchOf, Tags};
use crate::rows::{
    PROMISE_COLUMNS, PROMISE_WIDTH, Promise, PromiseState, SCHEDULE_COLUMNS, Schedule, TASK_COLUMNS, TASK_WIDTH,
    TaskState,
};
use crate::view::{Sql, View, list, state_named, task_with_promise};
use rusqlite::params;
use serde_json::Value;

/// Rows that one page looks at, matching or not: it may come out short, or empty, with a cursor to go on from.
const LOOKED_AT: usize = 20_000;

/// One page under way.
struct Page {
    limit: usize,
    records: Vec<String>,
    looked_at: usize,
    last: i64,
}

impl Page {
    fn new(search: &Search) -> Self {
        Page { limit: search.limit, records: Vec::new(), looked_at: 0, last: 0 }
    }

    /// Takes what was found in the row `seq`, if anything. False when the page is full.
    fn take(&mut self, seq: i64, record: Option<String>) -> bool {
        self.last = seq;
        self.looked_at += 1;
        self.records.extend(record);
        !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.records.len() == self.limit || self.looked_at == LOOKED_AT
    }

    fn reply(self, name: &str) -> Reply {
        let cursor = if self.is_full() { Value::from(self.last.to_string()) } else { Value::Null };
        Reply::ok(format!(r#"{{"{name}":{},"cursor":{cursor}}}"#, list(&self.records)))
    }
}

impl View<'_> {
    /// Answers one page.
    pub fn search(&self, search: &Search) -> Sql<Reply> {
        match search.of {
            SearchOf::Promises => self.search_promises(search),
            SearchOf::Tasks => self.search_tasks(search),
            SearchOf::Schedules => self.search_schedules(search),
        }
    }

    fn search_promises(&self, search: &Search) -> Sql<Reply> {
        let state = match state_named::<PromiseState>(search.state.as_deref()) {
            Ok(state) => state,
            Err(reply) => return Ok(reply),
        };
        // What is stored as pending may count as settled by now, never the other way round.
        let stored = match state {
            Some(PromiseState::Pending) => "p.state = 0",
            _ => "1",
        };
        let origin = search.tags.get("resonate:origin");
        // One origin is found by its index; otherwise the table is walked in its order.
        let by_origin = if origin.is_some() { "p.origin = ?3" } else { "?3 IS NULL" };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {PROMISE_COLUMNS} FROM promises p WHERE p.seq > ?1 AND {stored} AND {by_origin} \
             ORDER BY p.seq LIMIT ?2"
        ))?;
        let mut rows = statement.query(params![search.cursor.unwrap_or(0), LOOKED_AT as i64, origin])?;
        let mut page = Page::new(search);
        while let Some(row) = rows.next()? {
            let promise = Promise::read(row, 0)?.project(self.now);
            let found = state.is_none_or(|state| promise.state == state) && has_tags(&promise.tags, &search.tags);
            if !page.take(promise.seq, found.then(|| promise.record())) {
                break;
            }
        }
        Ok(page.reply("promises"))
    }

    fn search_tasks(&self, search: &Search) -> Sql<Reply> {
        let state = match state_named::<TaskState>(search.state.as_deref()) {
            Ok(state) => state,
            Err(reply) => return Ok(reply),
        };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {TASK_COLUMNS}, {PROMISE_COLUMNS}, t.seq FROM tasks t JOIN promises p ON p.id = t.id \
             WHERE t.seq > ?1 ORDER BY t.seq LIMIT ?2"
        ))?;
        let mut rows = statement.query(params![search.cursor.unwrap_or(0), LOOKED_AT as i64])?;
        let mut page = Page::new(search);
        while let Some(row) = rows.next()? {
            let (task, promise) = self.project(task_with_promise(row)?);
            let found = state.is_none_or(|state| task.state == state) && has_tags(&promise.tags, &search.tags);
            if !page.take(row.get(TASK_WIDTH + PROMISE_WIDTH)?, found.then(|| task.record().to_string())) {
                break;
            }
        }
        Ok(page.reply("tasks"))
    }

    fn search_schedules(&self, search: &Search) -> Sql<Reply> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {SCHEDULE_COLUMNS}, seq FROM schedules WHERE seq > ?1 ORDER BY seq LIMIT ?2"
        ))?;
        let mut rows = statement.query(params![search.cursor.unwrap_or(0), LOOKED_AT as i64])?;
        let mut page = Page::new(search);
        while let Some(row) = rows.next()? {
            let schedule = Schedule::read(row)?;
            let found = has_tags(&schedule.promise_tags, &search.tags);
            if !page.take(row.get(9)?, found.then(|| schedule.record())) {
                break;
            }
        }
        Ok(page.reply("schedules"))
    }
}

fn has_tags(tags: &str, wanted: &Tags) -> bool {
    wanted.is_empty() || wanted.are_among(&Tags::stored(tags))
}
