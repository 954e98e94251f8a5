//! Carries out commands, and says what has changed by them.

use super::choice::{Policy, Serving};
use super::command::{Command, CommandError};
use super::keeper::Keeper;
use super::state::{RouteSpec, State};
use crate::clock::now_ms;
use crate::config::{Share, Versions};
use crate::plugin::{Digest, Version};
use std::sync::Arc;

impl Keeper {
    /// The answer is for people.
    pub async fn carry_out(&mut self, command: Command) -> Result<String, CommandError> {
        let said = match command {
            Command::Use { plugin, digest } => self.use_version(&plugin, &digest).await,
            Command::Pin { route, digest } => self.pin(&route, &digest).await,
            Command::Canary { route, percent } => self.canary(&route, percent).await,
            Command::Unpin { route } => self.unpin(&route).await,
            Command::Rollback { name, plugin } => self.roll_back(&name, plugin).await,
        }?;
        tracing::info!(target: "pawl::registry", "by command: {said}");
        Ok(said)
    }

    async fn use_version(&mut self, plugin: &str, begin: &str) -> Result<String, CommandError> {
        let (digest, version) = self.version(plugin, begin).await?;
        let (specs, name, now) = (self.specs(), plugin.to_owned(), now_ms());
        self.change(move |state| state.put_in_use(&specs, &name, digest, now)).await?;
        self.there.insert(plugin.to_owned());
        self.publish(plugin, Some(version)).await;
        Ok(format!("plugin {plugin}: version {} is in use{}", digest.short(), self.left_beside(plugin, digest)))
    }

    async fn pin(&mut self, route: &str, begin: &str) -> Result<String, CommandError> {
        let spec = self.spec(route)?;
        let (digest, version) = self.version(&spec.plugin, begin).await?;
        let (specs, now, plugin) = (self.specs(), now_ms(), spec.plugin.clone());
        self.change(move |state| state.set(&specs, &spec, &Versions::Pin(digest.to_string()), now)).await?;
        self.publish(&plugin, Some(version)).await;
        Ok(format!("route {route}: pinned to version {} of plugin {plugin}", digest.short()))
    }

    async fn canary(&mut self, route: &str, percent: f64) -> Result<String, CommandError> {
        let spec = self.spec(route)?;
        let share = Share::of(percent).ok_or(CommandError::NoShare { percent })?;
        let (specs, now, changed) = (self.specs(), now_ms(), spec.clone());
        let change = move |state: &mut State| state.begin_canary(&specs, &changed, share, now);
        self.load_for(&spec, &change).await?;
        self.change(change).await?;
        self.publish(&spec.plugin, None).await;
        let Serving { newest, stable, .. } = self.state.serving(&spec);
        Ok(match (newest, stable) {
            (Some(newest), Some(stable)) if newest != stable => format!(
                "route {route}: {share} of the workflows run version {} of plugin {}, the others {}",
                newest.short(),
                spec.plugin,
                stable.short()
            ),
            _ => format!(
                "route {route}: {share} of the workflows will run the next version of plugin {} that is dropped; until then all run the \
                 one that there is",
                spec.plugin
            ),
        })
    }

    async fn unpin(&mut self, route: &str) -> Result<String, CommandError> {
        let spec = self.spec(route)?;
        let (specs, now, changed) = (self.specs(), now_ms(), spec.clone());
        let change = move |state: &mut State| state.unset(&specs, &changed, now);
        self.load_for(&spec, &change).await?;
        self.change(change).await?;
        self.publish(&spec.plugin, None).await;
        Ok(format!("route {route}: versions = \"{}\", as pawl.toml says", spec.versions))
    }

    async fn roll_back(&mut self, name: &str, plugin: bool) -> Result<String, CommandError> {
        match self.spec(name) {
            Ok(spec) if !plugin => self.roll_back_route(spec).await,
            _ if self.state.plugins.contains_key(name) => self.roll_back_plugin(name).await,
            _ if plugin => Err(self.no_plugin(name)),
            _ => {
                let (name, plugins) = (name.to_owned(), self.plugins());
                let routes = self.specs().into_iter().map(|spec| spec.name).collect();
                Err(CommandError::Neither { name, routes, plugins })
            }
        }
    }

    async fn roll_back_plugin(&mut self, plugin: &str) -> Result<String, CommandError> {
        let before = self.state.before_newest(plugin)?;
        let version = self.loaded(plugin, before).await?;
        let (specs, name, now) = (self.specs(), plugin.to_owned(), now_ms());
        self.change(move |state| state.roll_back_plugin(&specs, &name, now)).await??;
        self.there.insert(plugin.to_owned());
        self.publish(plugin, Some(version)).await;
        Ok(format!("plugin {plugin}: back to version {}{}", before.short(), self.left_beside(plugin, before)))
    }

    async fn roll_back_route(&mut self, spec: RouteSpec) -> Result<String, CommandError> {
        let before = self.state.before_on(&spec)?;
        let version = self.loaded(&spec.plugin, before).await?;
        let (specs, now, changed) = (self.specs(), now_ms(), spec.clone());
        self.change(move |state| state.roll_back_route(&specs, &changed, now)).await??;
        self.publish(&spec.plugin, Some(version)).await;
        let RouteSpec { name, plugin, .. } = spec;
        Ok(format!("route {name}: back to version {} of plugin {plugin}", before.short()))
    }

    /// What the user should know who changes a plugin: the routes that do not follow, or not with all workflows.
    fn left_beside(&self, plugin: &str, digest: Digest) -> String {
        let (mut pinned, mut begun) = (Vec::new(), Vec::new());
        for spec in self.registry.routes().specs().iter().filter(|spec| spec.plugin == plugin) {
            match self.state.serving(spec).policy {
                Policy::Pin(other) if other != Ok(digest) => pinned.push(spec.name.as_str()),
                Policy::Begun => begun.push(spec.name.as_str()),
                _ => {}
            }
        }
        let told = |names: &[&str], text: &str| match names {
            [] => String::new(),
            names => format!("; {text}: {}", names.join(", ")),
        };
        told(&pinned, "not on what is pinned to another")
            + &told(&begun, "not in workflows that keep what they began with")
    }

    /// Loads what the route would run beside the newest version after the change, so that what can't run is not chosen.
    async fn load_for(&mut self, spec: &RouteSpec, change: impl Fn(&mut State)) -> Result<(), CommandError> {
        let mut after = State::clone(&self.state);
        change(&mut after);
        let Serving { policy, newest, stable, rolled_back } = after.serving(spec);
        let beside = match policy {
            Policy::Pin(pinned) => Some(pinned.map_err(|reason| CommandError::Unloadable { reason })?),
            Policy::Canary(share) if rolled_back || stable != newest && share.percent() < 100.0 => stable,
            _ => None,
        };
        if let Some(digest) = beside {
            self.loaded(&spec.plugin, digest).await?;
        }
        Ok(())
    }

    /// The kept version whose digest begins so, loaded.
    async fn version(&mut self, plugin: &str, begin: &str) -> Result<(Digest, Arc<Version>), CommandError> {
        let state = self.state.plugins.get(plugin).ok_or_else(|| self.no_plugin(plugin))?;
        let digest = state.find(plugin, begin)?;
        Ok((digest, self.loaded(plugin, digest).await?))
    }

    async fn loaded(&mut self, plugin: &str, digest: Digest) -> Result<Arc<Version>, CommandError> {
        let loaded = self.load_for_step(plugin, digest).await;
        loaded.map_err(|reason| CommandError::Unloadable { reason })
    }

    fn no_plugin(&self, name: &str) -> CommandError {
        CommandError::NoPlugin { name: name.to_owned(), known: self.plugins() }
    }

    fn plugins(&self) -> Vec<String> {
        self.state.plugins.keys().cloned().collect()
    }
}
