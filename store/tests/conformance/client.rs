//! A store on the virtual clock of its debug operations, and what it answers.

use crate::operation::{Answer, Operation, SearchOf, request};
use pawl_store::{Options, Store};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

pub struct Client {
    pub store: Store,
    _dir: TempDir,
}

/// Longer than any history lasts.
const NO_RETENTION: Duration = Duration::from_secs(1_000_000_000);

impl Client {
    pub async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub async fn open_with(change: impl FnOnce(&mut Options)) -> Self {
        // In memory where that can be had: what a sync is worth is not what is tested here.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let path = dir.path().join("store.db");
        let mut options = Options { path, debug: true, retention: NO_RETENTION, ..Options::default() };
        change(&mut options);
        Client { store: Store::open(options).await.unwrap(), _dir: dir }
    }

    pub async fn ask(&self, now: i64, kind: &str, data: Value) -> Answer {
        Answer::read(kind, &self.store.request(request(now, kind, &data)).await)
    }

    pub async fn reset(&self) {
        assert_eq!(self.ask(0, "debug.reset", json!({})).await.status, 200);
    }

    /// What `operation` is answered; of a search, all pages.
    pub async fn answer(&self, operation: &Operation, now: i64) -> Answer {
        let Operation::Search(search) = operation else {
            return self.ask(now, operation.kind(), operation.data()).await;
        };
        let list = match search.of {
            SearchOf::Promises => "promises",
            SearchOf::Tasks => "tasks",
            SearchOf::Schedules => "schedules",
        };
        let (mut data, mut sizes, mut found) = (operation.data(), Vec::new(), Vec::new());
        loop {
            let page = self.ask(now, operation.kind(), data.clone()).await;
            let Some(records) = page.data[list].as_array().filter(|_| page.status == 200) else { return page };
            sizes.push(records.len());
            found.extend(records.iter().cloned());
            if page.data["cursor"].is_null() {
                return Answer::ok(json!({"sizes": sizes, "found": found}));
            }
            data["cursor"] = page.data["cursor"].clone();
        }
    }

    pub async fn snapshot(&self, now: i64) -> Value {
        crate::operation::sorted_snapshot(self.ask(now, "debug.snap", json!({})).await.data)
    }
}
