//! The removal of what was settled long ago, and of the room that it leaves in the file.
//!
//! A tree is a root and every promise that names it as its origin, and so on from those that are origins in turn (an execution that
//! was called by another). It goes whole, but over as many transactions as its size asks for: a look first whether somebody still
//! works in it, then the branches, the root last, so that what a crash leaves over is found again.

use super::State;
use crate::view::Sql;
use rusqlite::{OptionalExtension, params};

/// A root that has ended, or that is internal and will end at its timeout without anybody writing it down; as in the index.
const ENDED: &str = "origin = id AND (state <> 0 OR external = 0)";
/// When; as in the index.
const ENDED_AT: &str = "coalesce(settled_at, timeout_at)";
/// Somebody executes this promise, or waits for it: an execution may outlive the root that detached it.
const LIVE: &str = "p.state = 0 AND p.external = 1 AND (p.target IS NOT NULL OR EXISTS (\
    SELECT 1 FROM callbacks c JOIN tasks t ON t.id = c.awaiter WHERE c.awaited = p.id AND t.state <> 4))";
/// After this time, in milliseconds, trees that were still live are looked at again.
const AGAIN: i64 = 3_600_000;
/// The file shrinks when more than one page in so many is free, and more than [`SPARE`] are. New rows take free pages first, and
/// giving a page back means copying another into its place through the WAL: so what a store that turns over its contents will need
/// again tomorrow is left to it, and only what a burst has left behind is given back.
const SHARE: i64 = 4;
/// Free pages that are never worth the work: 4 MiB.
const SPARE: i64 = 1024;

/// How far the removal has come. A new one starts from the beginning: nothing is lost but the time.
#[derive(Debug)]
pub struct Removal {
    /// The last root that was looked at: when it ended, and its `seq`.
    after: (i64, i64),
    tree: Option<Tree>,
    /// Some trees were live when they were looked at: when they are looked at again.
    again: Option<i64>,
    shrinking: bool,
}

impl Default for Removal {
    fn default() -> Self {
        // What an earlier process removed may have left room.
        Removal { after: (i64::MIN, i64::MIN), tree: None, again: None, shrinking: true }
    }
}

impl Removal {
    /// A promise was settled at a time, which may be long ago: nobody was there to write it down.
    pub fn settled(&mut self, at: i64) {
        if at <= self.after.0 {
            self.after = (at.saturating_sub(1), i64::MAX);
        }
    }
}

/// A tree that is being looked at or removed.
#[derive(Debug)]
struct Tree {
    /// The root, then every promise below it that is an origin itself, each before those below it.
    origins: Vec<String>,
    /// The first of them that has not been looked at whole.
    origin: usize,
    /// How far that one was looked at.
    seq: i64,
}

/// Those that come after a moment (`?1`) and a `seq` (`?2`).
fn next_ended() -> String {
    // Said twice because the pair alone does not lead SQLite to the place in the index.
    format!("{ENDED} AND {ENDED_AT} >= ?1 AND ({ENDED_AT}, seq) > (?1, ?2)")
}

impl State<'_> {
    /// Removes workflows that were settled before a time, a bounded number of rows. True if there is more to do now.
    pub fn remove_settled(&mut self, removal: &mut Removal, settled_before: i64, limit: usize) -> Sql<bool> {
        if removal.again.is_some_and(|again| again <= self.view.now) {
            (removal.after, removal.again) = ((i64::MIN, i64::MIN), None);
        }
        let mut left = limit;
        while left > 0 {
            let tree = match removal.tree.take() {
                Some(tree) => tree,
                None => match self.next_tree(removal, settled_before)? {
                    Some(tree) => tree,
                    None => return Ok(false),
                },
            };
            left -= 1;
            removal.tree = self.work_on(tree, removal, &mut left)?;
        }
        Ok(true)
    }

    fn next_tree(&self, removal: &mut Removal, settled_before: i64) -> Sql<Option<Tree>> {
        let mut first = self.view.connection.prepare_cached(&format!(
            "SELECT {ENDED_AT}, seq, id FROM promises WHERE {NEXT} AND {ENDED_AT} < ?3 ORDER BY {ENDED_AT}, seq LIMIT 1",
            NEXT = next_ended()
        ))?;
        let mut rows = first.query(params![removal.after.0, removal.after.1, settled_before])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        removal.after = (row.get(0)?, row.get(1)?);
        Ok(Some(Tree { origins: vec![row.get(2)?], origin: 0, seq: i64::MIN }))
    }

    /// Looks at or removes a part of a tree. Answers the tree if there is more of it.
    fn work_on(&mut self, mut tree: Tree, removal: &mut Removal, left: &mut usize) -> Sql<Option<Tree>> {
        while tree.origin < tree.origins.len() {
            if *left == 0 {
                return Ok(Some(tree));
            }
            if self.is_live(&mut tree, left)? {
                removal.again.get_or_insert(self.view.now.saturating_add(AGAIN));
                return Ok(None);
            }
        }
        while let Some(origin) = tree.origins.last() {
            if !self.remove_branch(origin, left)? || !self.remove_outcomes(origin, left)? {
                return Ok(Some(tree));
            }
            if tree.origins.len() == 1 {
                self.remove(origin)?;
            }
            tree.origins.pop();
            removal.shrinking = true;
        }
        Ok(None)
    }

    /// Looks at the next promises of the tree, and notes which are origins. True if somebody still works on one.
    fn is_live(&self, tree: &mut Tree, left: &mut usize) -> Sql<bool> {
        let origin = &tree.origins[tree.origin];
        let mut promises = self.view.connection.prepare_cached(&format!(
            "SELECT p.seq, p.id, {LIVE}, \
             p.target IS NOT NULL AND EXISTS (SELECT 1 FROM promises c WHERE c.origin = p.id AND c.id <> p.id) \
             FROM promises p WHERE p.origin = ?1 AND p.seq > ?2 ORDER BY p.seq LIMIT ?3"
        ))?;
        let mut rows = promises.query(params![origin, tree.seq, *left as i64])?;
        let (mut below, mut looked_at) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            if row.get(2)? {
                return Ok(true);
            }
            let id: String = row.get(1)?;
            if row.get(3)? && id != *origin {
                below.push(id);
            }
            tree.seq = row.get(0)?;
            looked_at += 1;
        }
        if looked_at < *left {
            (tree.origin, tree.seq) = (tree.origin + 1, i64::MIN);
        }
        *left -= looked_at;
        tree.origins.extend(below);
        Ok(false)
    }

    /// Removes promises of an origin, not the origin itself. True when there are none left.
    fn remove_branch(&self, origin: &str, left: &mut usize) -> Sql<bool> {
        let ids: Vec<String> = self
            .view
            .connection
            .prepare_cached("SELECT id FROM promises WHERE origin = ?1 AND id <> ?1 LIMIT ?2")?
            .query_map(params![origin, *left as i64], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        for id in &ids {
            self.remove(id)?;
        }
        let complete = ids.len() < *left;
        *left -= ids.len();
        Ok(complete)
    }

    fn remove(&self, id: &str) -> Sql<()> {
        for delete in [
            "DELETE FROM callbacks WHERE awaited = ?1",
            "DELETE FROM callbacks WHERE awaiter = ?1",
            "DELETE FROM listeners WHERE promise = ?1",
            "DELETE FROM tasks WHERE id = ?1",
            "DELETE FROM promises WHERE id = ?1",
        ] {
            self.view.connection.prepare_cached(delete)?.execute([id])?;
        }
        Ok(())
    }

    /// Gives free pages back to the file system if there are many, a bounded number of them. True if there is more to do now.
    pub fn shrink(&mut self, removal: &mut Removal, limit: usize) -> Sql<bool> {
        if !removal.shrinking {
            return Ok(false);
        }
        let pragma = |name: &str| {
            self.view.connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get::<_, i64>(0))
        };
        let (free, pages) = (pragma("freelist_count")?, pragma("page_count")?);
        removal.shrinking = free > SPARE && free > pages / SHARE;
        if removal.shrinking {
            // Each row is a page.
            let mut vacuum = self.view.connection.prepare_cached(&format!("PRAGMA incremental_vacuum({limit})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(removal.shrinking)
    }

    /// When the removal has something to do next.
    pub(super) fn next_removal(&self, removal: &Removal, retention: i64) -> Sql<Option<i64>> {
        // As `next_tree` has it: what lies behind is waited for in `again`.
        let ended: Option<i64> = self
            .view
            .connection
            .prepare_cached(&format!(
                "SELECT {ENDED_AT} FROM promises WHERE {NEXT} ORDER BY {ENDED_AT}, seq LIMIT 1",
                NEXT = next_ended()
            ))?
            .query_row([removal.after.0, removal.after.1], |row| row.get(0))
            .optional()?;
        let expires = ended.map(|ended| ended.saturating_add(retention).saturating_add(1));
        Ok([expires, removal.again].into_iter().flatten().min())
    }
}
