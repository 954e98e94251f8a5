//! Which unfinished workflows keep the version of the plugin that they began with: found by the tags of their first roots.

use crate::durable::DurableError;
use crate::durable::client::Client;
use crate::plugin::Digest;
use std::collections::HashMap;

/// Names the plugin.
const PLUGIN: &str = "pawl:plugin";
/// The digest of the version.
const VERSION: &str = "pawl:version";

/// The tags of a workflow that keeps a version of a plugin. Its first root is pending until the workflow has ended.
pub fn tags(plugin: &str, version: &str) -> [(String, String); 2] {
    [(PLUGIN.to_owned(), plugin.to_owned()), (VERSION.to_owned(), version.to_owned())]
}

/// How many unfinished workflows keep each version of a plugin: all of them, or an error.
pub async fn holders(client: &Client, plugin: &str) -> Result<HashMap<Digest, u64>, DurableError> {
    let mut holders = HashMap::new();
    let mut cursor = None;
    loop {
        let tags = HashMap::from([(PLUGIN.to_owned(), plugin.to_owned())]);
        let (tags_found, next) = client.pending_tags(tags, cursor.as_deref()).await?;
        for digest in tags_found.iter().filter_map(|tags| Digest::parse(tags.get(VERSION)?)) {
            *holders.entry(digest).or_insert(0) += 1;
        }
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(holders),
        }
    }
}
