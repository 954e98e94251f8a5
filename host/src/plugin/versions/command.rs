//! What can be asked of a running worker about the versions of its plugins, and what it answers.

use super::trial::Counts;
use crate::plugin::Digest;
use serde::{Deserialize, Serialize};

/// A change that holds until the next one, also after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Command {
    /// Goes on with a version of a plugin.
    Use {
        /// The plugin's name.
        plugin: String,
        /// How the version's digest begins.
        digest: String,
    },
    /// Has a route run one version.
    Pin {
        /// The route's name.
        route: String,
        /// How the version's digest begins.
        digest: String,
    },
    /// Has a share of a route's workflows run the newest version, and the others the one before.
    Canary {
        /// The route's name.
        route: String,
        /// In percent, above 0 and up to 100.
        percent: f64,
    },
    /// Back to what pawl.toml says.
    Unpin {
        /// The route's name.
        route: String,
    },
    /// Back to the version before.
    Rollback {
        /// A route's or a plugin's name.
        name: String,
        /// It is a plugin's, even if a route has it too.
        plugin: bool,
    },
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such plugin.
    #[error("there is no plugin `{name}`; there are: {}", list(.known))]
    NoPlugin {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No such route.
    #[error("there is no route `{name}` of a plugin in the plugins folder; pawl.toml of the worker has: {}", list(.known))]
    NoRoute {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Neither.
    #[error("`{name}` is neither a route nor a plugin; routes: {}; plugins: {}", list(.routes), list(.plugins))]
    Neither {
        /// What was asked for.
        name: String,
        /// The routes that there are.
        routes: Vec<String>,
        /// The plugins that there are.
        plugins: Vec<String>,
    },
    /// No such version.
    #[error(
        "no version {begin} of plugin `{plugin}` is kept (kept: {}); `pawl plugin versions` shows them, and a component that is \
         dropped into the plugins folder is one",
        list(.kept)
    )]
    NoVersion {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        begin: String,
        /// Those that there are.
        kept: Vec<String>,
    },
    /// Several versions begin so.
    #[error("several versions begin with `{begin}`: {}; give more digits", list(.matches))]
    Ambiguous {
        /// What was asked for.
        begin: String,
        /// The digests.
        matches: Vec<String>,
    },
    /// There is none to go back to.
    #[error(
        "{of} has run no version before this one; `pawl plugin versions` shows what is kept, `pawl plugin use` and `pin` run it"
    )]
    NoneBefore {
        /// The route or the plugin.
        of: String,
    },
    /// No share.
    #[error("{percent} is no share in percent; give a number above 0 and up to 100")]
    NoShare {
        /// What was asked for.
        percent: f64,
    },
    /// The version can't run any more.
    #[error("{reason}")]
    Unloadable {
        /// Which, why and what to do.
        reason: String,
    },
    /// What was set could not be written.
    #[error("can't note it in {path}: {source}; is the disk full, or the folder read-only?")]
    NotNoted {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The worker ends.
    #[error("the worker is shutting down; try again when it runs")]
    ShuttingDown,
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// All versions that are kept or in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// By plugin, the youngest first.
    pub versions: Vec<RowOfVersion>,
    /// What does not run as it should: a sentence each.
    pub notes: Vec<String>,
}

/// One version of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowOfVersion {
    /// The plugin's name.
    pub plugin: String,
    /// The sha256 of the component.
    pub digest: Digest,
    /// When it was last dropped or put in use, milliseconds since the Unix epoch; absent if its file is not kept.
    pub since_ms: Option<u64>,
    /// Whether it is the plugin's newest.
    pub newest: bool,
    /// The routes that run it.
    pub serves: Vec<ServedRoute>,
    /// Steps that ran it, on all routes, since the worker began.
    pub counts: Counts,
    /// Unfinished workflows that keep it; absent if that could not be found out.
    pub held: Option<u64>,
}

/// A route that runs a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedRoute {
    /// The route's name.
    pub route: String,
    /// The share of its workflows, in percent, if it is not all of them.
    pub percent: Option<f64>,
    /// Why this one, if it is not just the newest: `pinned`, `canary`, `begun` or `rolled back`.
    pub because: Option<String>,
}
