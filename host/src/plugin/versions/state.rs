//! What is known of the versions of all plugins, and what a drop, a command or a verdict makes of it: pure, stored as one JSON file.

use super::choice::{Policy, Serving};
use super::command::CommandError;
use super::kept::Keeping;
use crate::config::{RollBack, Route, Share, Versions};
use crate::plugin::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// So far back goes the line of what was in use.
const LONGEST_LINE: usize = 32;

/// What of a route matters here.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSpec {
    pub name: String,
    pub plugin: String,
    /// What pawl.toml says.
    pub versions: Versions,
    pub roll_back: RollBack,
}

impl From<&Route> for RouteSpec {
    fn from(route: &Route) -> Self {
        let Route { name, plugin, versions, roll_back, .. } = route;
        RouteSpec {
            name: name.clone(),
            plugin: plugin.clone(),
            versions: versions.clone(),
            roll_back: roll_back.clone(),
        }
    }
}

/// All that outlives the worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(default)]
    pub plugins: BTreeMap<String, PluginState>,
    #[serde(default)]
    routes: BTreeMap<String, RouteState>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PluginState {
    /// The last one that was dropped into the folder and fits.
    pub dropped: Option<Digest>,
    /// What was in use one after another; the last is the newest. What was rolled back is not among them.
    #[serde(default)]
    line: Vec<Digest>,
    /// Whether a command made the newest what it is, for all routes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    commanded: bool,
    /// Those whose files are kept.
    #[serde(default)]
    pub kept: BTreeMap<Digest, Kept>,
}

/// A version whose file is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// When it was last dropped or put in use, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When the last route left it; absent while one names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct RouteState {
    /// What a command set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<Setting>,
    /// What the route ran before the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stable: Option<Digest>,
    /// The route went back from this one. It lapses when another one becomes the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected: Option<Digest>,
    /// The canary that was last found to be no worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passed: Option<Digest>,
    /// The newest version of the plugin as of when the two above were last set: a worker that does not have the route may note the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Setting {
    versions: String,
    /// What pawl.toml said then: when it says something else, that counts again.
    instead_of: String,
}

impl PluginState {
    /// The version in use, unless a route says otherwise.
    pub fn newest(&self) -> Option<Digest> {
        self.line.last().copied()
    }

    /// Whether it is in use by a command and not because it was dropped last.
    pub fn newest_is_chosen(&self) -> bool {
        self.newest() != self.dropped
    }

    /// The one that was in use before `digest`; of one that is not in line, the newest.
    fn before(&self, digest: Digest) -> Option<Digest> {
        match self.line.iter().position(|other| *other == digest) {
            Some(at) => at.checked_sub(1).map(|at| self.line[at]),
            None => self.newest(),
        }
    }

    fn put_in_use(&mut self, digest: Digest, now_ms: u64) {
        self.line.retain(|other| *other != digest);
        self.line.push(digest);
        let surplus = self.line.len().saturating_sub(LONGEST_LINE);
        self.line.drain(..surplus);
        if let Some(kept) = self.kept.get_mut(&digest) {
            kept.since_ms = now_ms;
        }
    }

    /// The one kept version whose digest begins so.
    pub fn find(&self, plugin: &str, begin: &str) -> Result<Digest, CommandError> {
        let begin = begin.to_ascii_lowercase();
        let found: Vec<Digest> =
            self.known().into_iter().filter(|digest| digest.to_string().starts_with(&begin)).collect();
        match found.as_slice() {
            [digest] if !begin.is_empty() => Ok(*digest),
            [] => Err(CommandError::NoVersion {
                plugin: plugin.to_owned(),
                begin,
                kept: self.known().iter().map(Digest::short).collect(),
            }),
            _ => Err(CommandError::Ambiguous { begin, matches: found.iter().map(ToString::to_string).collect() }),
        }
    }

    /// Whether it is, or was, a version of this plugin.
    fn knows(&self, digest: Digest) -> bool {
        self.line.contains(&digest) || self.kept.contains_key(&digest)
    }

    /// What can be asked for: what is kept, and what is in use although it could not be kept.
    fn known(&self) -> BTreeSet<Digest> {
        self.kept.keys().copied().chain(self.newest()).collect()
    }
}

impl State {
    fn plugin(&self, name: &str) -> Option<&PluginState> {
        self.plugins.get(name)
    }

    /// A component that was found on disk.
    pub fn find_kept(&mut self, plugin: &str, digest: Digest, since_ms: u64) {
        let state = self.plugins.entry(plugin.to_owned()).or_default();
        state.kept.entry(digest).or_insert(Kept { since_ms, left_ms: None });
    }

    /// One that could not be kept is.
    pub fn keep(&mut self, routes: &[RouteSpec], plugin: &str, digest: Digest, now_ms: u64) {
        self.find_kept(plugin, digest, now_ms);
        self.settle(routes, now_ms);
    }

    /// The policy that holds for a route.
    pub fn policy(&self, route: &RouteSpec) -> Versions {
        self.setting(route).and_then(|set| set.versions.parse().ok()).unwrap_or_else(|| route.versions.clone())
    }

    /// Whether that comes from a command.
    pub fn is_set(&self, route: &RouteSpec) -> bool {
        self.setting(route).is_some()
    }

    fn setting(&self, route: &RouteSpec) -> Option<&Setting> {
        let set = self.routes.get(&route.name)?.set.as_ref()?;
        (set.instead_of == route.versions.to_string()).then_some(set)
    }

    /// What the route chooses from.
    pub fn serving(&self, route: &RouteSpec) -> Serving {
        let nothing = (PluginState::default(), RouteState::default());
        let plugin = self.plugin(&route.plugin).unwrap_or(&nothing.0);
        let state = self.routes.get(&route.name).unwrap_or(&nothing.1);
        let policy = match self.policy(route) {
            Versions::Newest => Policy::Newest,
            Versions::Begun => Policy::Begun,
            Versions::Pin(begin) => Policy::Pin(plugin.find(&route.plugin, &begin).map_err(|e| e.to_string())),
            Versions::Canary(share) => Policy::Canary(share),
        };
        let newest = plugin.newest();
        Serving { policy, newest, stable: state.stable, rolled_back: newest.is_some() && state.rejected == newest }
    }

    /// The versions of a plugin that steps run because of a policy, or would as soon as what a command set ends.
    pub fn named(&self, plugin: &str, routes: &[RouteSpec]) -> BTreeSet<Digest> {
        let mut named: BTreeSet<Digest> = self.plugin(plugin).and_then(PluginState::newest).into_iter().collect();
        for route in routes.iter().filter(|route| route.plugin == plugin) {
            let serving = self.serving(route);
            named.extend(serving.named());
            match (&route.versions, self.plugin(plugin)) {
                (Versions::Pin(begin), Some(state)) => named.extend(state.find(plugin, begin)),
                (Versions::Canary(_), _) => named.extend(serving.stable),
                _ => {}
            }
        }
        named
    }

    /// A version that fits was dropped. Nothing changes if that is known already.
    pub fn drop_in(&mut self, routes: &[RouteSpec], plugin: &str, digest: Digest, is_kept: bool, now_ms: u64) {
        if is_kept {
            self.find_kept(plugin, digest, now_ms);
        }
        let state = self.plugins.entry(plugin.to_owned()).or_default();
        if state.dropped.replace(digest) == Some(digest) || state.newest() == Some(digest) {
            return;
        }
        let before = state.newest();
        state.put_in_use(digest, now_ms);
        state.commanded = false;
        for route in routes.iter().filter(|route| route.plugin == plugin) {
            self.follow(route, before, digest);
        }
        self.settle(routes, now_ms);
    }

    /// The route's plugin has a newer version than the one before.
    fn follow(&mut self, route: &RouteSpec, before: Option<Digest>, newest: Digest) {
        // Also behind a pin that takes its place for a while.
        let policies = [&self.policy(route), &route.versions];
        let shares = policies.iter().any(|policy| matches!(policy, Versions::Canary(share) if share.percent() < 100.0));
        let stable = self.routes.get(&route.name).and_then(|state| state.stable);
        let beside = stable.is_some_and(|stable| self.plugin(&route.plugin).is_some_and(|plugin| plugin.knows(stable)));
        let state = self.routes.entry(route.name.clone()).or_default();
        // What was given up is not what the route ran, nor is what is still on trial.
        let on_trial = shares && beside && state.passed != before;
        if before.is_some() && state.rejected != before && !on_trial {
            state.stable = before;
        }
        (state.rejected, state.newest) = (None, Some(newest));
    }

    /// Does for these routes what workers that don't have them could not do when they changed the newest version. Nothing changes if
    /// that was done.
    pub fn catch_up(&mut self, routes: &[RouteSpec], now_ms: u64) {
        let mut behind = false;
        for route in routes {
            let Some(plugin) = self.plugin(&route.plugin) else { continue };
            let Some(newest) = plugin.newest() else { continue };
            let seen = self.routes.get(&route.name).and_then(|state| state.newest);
            if seen == Some(newest) {
                continue;
            }
            behind = true;
            match seen {
                Some(seen) if plugin.knows(seen) && plugin.commanded => self.run_on(route, newest),
                Some(seen) if plugin.knows(seen) => {
                    let before = if plugin.line.contains(&seen) { Some(seen) } else { plugin.before(newest) };
                    self.follow(route, before, newest);
                }
                // It is new here, had another plugin, or was stored by a Pawl that did not note it.
                _ => self.routes.entry(route.name.clone()).or_default().newest = Some(newest),
            }
        }
        if behind {
            self.settle(routes, now_ms);
        }
    }

    /// Goes on with a version: all routes that are not pinned run it, whatever they ran before.
    pub fn put_in_use(&mut self, routes: &[RouteSpec], plugin: &str, digest: Digest, now_ms: u64) {
        let state = self.plugins.entry(plugin.to_owned()).or_default();
        state.put_in_use(digest, now_ms);
        self.run_on_all(routes, plugin, digest, now_ms);
    }

    /// Back to the version before, on all routes that are not pinned.
    pub fn roll_back_plugin(&mut self, routes: &[RouteSpec], plugin: &str, now_ms: u64) -> Result<(), CommandError> {
        let before = self.before_newest(plugin)?;
        let state = self.plugins.entry(plugin.to_owned()).or_default();
        state.line.pop();
        if let Some(kept) = state.kept.get_mut(&before) {
            kept.since_ms = now_ms;
        }
        self.run_on_all(routes, plugin, before, now_ms);
        Ok(())
    }

    /// What rolling a plugin back would put in use.
    pub fn before_newest(&self, plugin: &str) -> Result<Digest, CommandError> {
        let state = self.plugin(plugin);
        let before = state.and_then(|state| state.before(state.newest()?));
        before.ok_or_else(|| CommandError::NoneBefore { of: format!("plugin `{plugin}`") })
    }

    fn run_on_all(&mut self, routes: &[RouteSpec], plugin: &str, digest: Digest, now_ms: u64) {
        if let Some(state) = self.plugins.get_mut(plugin) {
            state.commanded = true;
        }
        for route in routes.iter().filter(|route| route.plugin == plugin) {
            self.run_on(route, digest);
        }
        self.settle(routes, now_ms);
    }

    fn run_on(&mut self, route: &RouteSpec, newest: Digest) {
        let state = self.routes.entry(route.name.clone()).or_default();
        (state.stable, state.rejected, state.newest) = (Some(newest), None, Some(newest));
    }

    /// Sets the policy of one route.
    pub fn set(&mut self, routes: &[RouteSpec], route: &RouteSpec, versions: &Versions, now_ms: u64) {
        let instead_of = route.versions.to_string();
        let state = self.routes.entry(route.name.clone()).or_default();
        state.set = Some(Setting { versions: versions.to_string(), instead_of });
        self.settle(routes, now_ms);
    }

    /// A share of the newest version beside the one before it.
    pub fn begin_canary(&mut self, routes: &[RouteSpec], route: &RouteSpec, share: Share, now_ms: u64) {
        let plugin = self.plugin(&route.plugin);
        let newest = plugin.and_then(PluginState::newest);
        let before = plugin.and_then(|plugin| plugin.before(newest?));
        let state = self.routes.entry(route.name.clone()).or_default();
        state.rejected = None;
        if state.stable.is_none() || state.stable == newest {
            state.stable = before;
        }
        self.set(routes, route, &Versions::Canary(share), now_ms);
    }

    /// Back to what pawl.toml says.
    pub fn unset(&mut self, routes: &[RouteSpec], route: &RouteSpec, now_ms: u64) {
        let state = self.routes.entry(route.name.clone()).or_default();
        (state.set, state.rejected) = (None, None);
        self.settle(routes, now_ms);
    }

    /// What rolling a route back would run.
    pub fn before_on(&self, route: &RouteSpec) -> Result<Digest, CommandError> {
        let serving = self.serving(route);
        let none = || CommandError::NoneBefore { of: format!("route `{}`", route.name) };
        let plugin = self.plugin(&route.plugin).ok_or_else(none)?;
        let before = match (&serving.policy, serving.stable) {
            (Policy::Pin(Ok(pinned)), _) => plugin.before(*pinned),
            (Policy::Pin(Err(reason)), _) => return Err(CommandError::Unloadable { reason: reason.clone() }),
            (_, Some(stable)) if !serving.rolled_back && Some(stable) != serving.newest => Some(stable),
            _ => serving.fresh().and_then(|fresh| plugin.before(fresh)),
        };
        before.filter(|before| Some(*before) != serving.newest || serving.is_pinned()).ok_or_else(none)
    }

    /// Back to the version before, on one route.
    pub fn roll_back_route(
        &mut self,
        routes: &[RouteSpec],
        route: &RouteSpec,
        now_ms: u64,
    ) -> Result<(), CommandError> {
        let before = self.before_on(route)?;
        let serving = self.serving(route);
        if serving.is_pinned() {
            self.set(routes, route, &Versions::Pin(before.to_string()), now_ms);
            return Ok(());
        }
        let state = self.routes.entry(route.name.clone()).or_default();
        (state.stable, state.rejected) = (Some(before), serving.newest);
        self.settle(routes, now_ms);
        Ok(())
    }

    /// A verdict: a new version is no worse, so that the next one may go beside it.
    pub fn pass(&mut self, route: &RouteSpec, new: Digest, old: Digest) {
        if self.serving(route).contest(route.roll_back.swaps) == Some((new, old)) {
            self.routes.entry(route.name.clone()).or_default().passed = Some(new);
        }
    }

    /// A verdict: the route goes back from a version, if that is still what is new there. Whether it did.
    pub fn reject(&mut self, routes: &[RouteSpec], route: &RouteSpec, new: Digest, old: Digest, now_ms: u64) -> bool {
        if self.serving(route).contest(route.roll_back.swaps) != Some((new, old)) {
            return false;
        }
        let state = self.routes.entry(route.name.clone()).or_default();
        state.rejected = Some(new);
        self.settle(routes, now_ms);
        true
    }

    /// The versions that nobody needs any more as far as is known here: no policy names them, nor did for some time, and enough others are
    /// younger.
    pub fn prunable(&self, plugin: &str, routes: &[RouteSpec], keeping: &Keeping, now_ms: u64) -> Vec<Digest> {
        let Some(state) = self.plugin(plugin) else { return Vec::new() };
        let named = self.named(plugin, routes);
        let mut by_age: Vec<(&Digest, &Kept)> = state.kept.iter().collect();
        by_age.sort_by_key(|(digest, kept)| (std::cmp::Reverse(kept.since_ms), **digest));
        let rest_ms = keeping.rest.as_millis() as u64;
        let rested = |kept: &Kept| kept.left_ms.is_some_and(|left| left.saturating_add(rest_ms) <= now_ms);
        let prunable = |(digest, kept): &(&Digest, &Kept)| !named.contains(*digest) && rested(kept);
        by_age.into_iter().skip(keeping.keep).filter(prunable).map(|(digest, _)| *digest).collect()
    }

    /// A version is not kept any more.
    pub fn forget(&mut self, plugin: &str, digest: Digest) {
        let Some(state) = self.plugins.get_mut(plugin) else { return };
        state.kept.remove(&digest);
        state.line.retain(|other| *other != digest);
        for route in self.routes.values_mut() {
            // Nothing runs it, so it is only what the route would go back to, or went back from and would run now.
            if route.stable == Some(digest) {
                (route.stable, route.rejected) = (None, None);
            }
        }
    }

    /// Notes when a version was left by the last route that named it.
    pub fn settle(&mut self, routes: &[RouteSpec], now_ms: u64) {
        let plugins: Vec<String> = self.plugins.keys().cloned().collect();
        for plugin in plugins {
            let named = self.named(&plugin, routes);
            let Some(state) = self.plugins.get_mut(&plugin) else { continue };
            for (digest, kept) in &mut state.kept {
                kept.left_ms = if named.contains(digest) { None } else { kept.left_ms.or(Some(now_ms)) };
            }
        }
    }
}

impl Serving {
    pub fn is_pinned(&self) -> bool {
        matches!(self.policy, Policy::Pin(_))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
