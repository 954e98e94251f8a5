//! What people are shown of the versions.

use super::choice::{Policy, Serving};
use super::command::{Report, RowOfVersion, ServedRoute};
use super::state::{RouteSpec, State};
use super::trial::Counts;
use crate::config::Versions;
use crate::plugin::Digest;
use std::collections::BTreeSet;

/// All versions that are kept or in use.
pub fn report(state: &State, routes: &[RouteSpec], counts: impl Fn(&str, &Digest) -> Counts) -> Report {
    let mut report = Report { versions: Vec::new(), notes: Vec::new() };
    for (name, plugin) in &state.plugins {
        let named = state.named(name, routes);
        let digests: BTreeSet<Digest> = plugin.kept.keys().copied().chain(named).collect();
        let row = |digest: Digest| RowOfVersion {
            plugin: name.clone(),
            digest,
            since_ms: plugin.kept.get(&digest).map(|kept| kept.since_ms),
            newest: plugin.newest() == Some(digest),
            serves: routes
                .iter()
                .filter(|route| route.plugin == *name)
                .filter_map(|r| served(state, r, digest))
                .collect(),
            counts: counts(name, &digest),
            held: None,
        };
        let mut rows: Vec<RowOfVersion> = digests.into_iter().map(row).collect();
        rows.sort_by_key(|row| (!row.newest, std::cmp::Reverse(row.since_ms), row.digest));
        report.versions.extend(rows);
    }
    for route in routes {
        if state.is_set(route) {
            let (set, file) = (brief(&state.policy(route)), brief(&route.versions));
            report
                .notes
                .push(format!("route {}: versions = \"{set}\" by command; pawl.toml says \"{file}\"", route.name));
        }
        if let Policy::Pin(Err(reason)) = state.serving(route).policy {
            report.notes.push(format!("route {} waits: {reason}", route.name));
        }
    }
    report
}

/// As it is written in pawl.toml, with no more of a digest than the table shows.
fn brief(versions: &Versions) -> String {
    match versions {
        Versions::Pin(digest) => format!("pin:{}", digest.get(..8).unwrap_or(digest)),
        other => other.to_string(),
    }
}

/// How the route runs the version, if it does.
fn served(state: &State, route: &RouteSpec, digest: Digest) -> Option<ServedRoute> {
    let serving: Serving = state.serving(route);
    let runs = |which: Option<Digest>| which == Some(digest);
    let because = |why: &str| Some(why.to_owned());
    let (percent, because) = match &serving.policy {
        Policy::Pin(pinned) => {
            pinned.as_ref().ok().filter(|pinned| **pinned == digest)?;
            (None, because("pinned"))
        }
        Policy::Canary(share)
            if !serving.rolled_back && serving.stable.is_some() && serving.stable != serving.newest =>
        {
            match (runs(serving.newest), runs(serving.stable)) {
                (true, _) => (Some(share.percent()), because("canary")),
                (_, true) => (Some(100.0 - share.percent()), None),
                _ => return None,
            }
        }
        _ if !runs(serving.fresh()) => return None,
        _ if serving.rolled_back => (None, because("rolled back")),
        Policy::Begun => (None, because("begun")),
        _ => (None, None),
    };
    Some(ServedRoute { route: route.name.clone(), percent, because })
}
