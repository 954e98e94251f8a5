//! Keeps the state here and the one that is stored the same, whoever changes it and whenever it can be stored.

use super::command::CommandError;
use super::keeper::{Keeper, blocking};
use super::kept::{Shelf, Updated};
use super::state::{PluginState, RouteSpec, State};
use crate::clock::now_ms;
use crate::plugin::Digest;
use std::io;
use std::sync::Arc;

/// A drop that is to be stored.
#[derive(Debug, Clone)]
pub struct Unnoted {
    plugin: String,
    digest: Digest,
    kept: bool,
    at_ms: u64,
}

impl Unnoted {
    fn note(&self, state: &mut State, routes: &[RouteSpec]) {
        state.drop_in(routes, &self.plugin, self.digest, self.kept, self.at_ms);
    }
}

impl Keeper {
    /// Notes a drop, if not now then later; here it holds at once.
    pub(super) async fn note(&mut self, plugin: &str, digest: Digest, kept: bool) {
        let (specs, unnoted) = (self.specs(), Unnoted { plugin: plugin.to_owned(), digest, kept, at_ms: now_ms() });
        let noting = unnoted.clone();
        if let Err(e) = self.update(move |state| noting.note(state, &specs)).await {
            let file = self.shelf.state_file();
            tracing::warn!(
                target: "pawl::registry",
                "plugin {plugin}: can't note in {file} that version {} is in use: {e}; it is tried again, and a restart before that may \
                 begin with another",
                digest.short()
            );
            self.unnoted.retain(|other| (other.plugin.as_str(), other.digest) != (plugin, digest));
            self.unnoted.push(unnoted);
            self.state = Arc::new(self.with_unnoted(self.stored.clone()));
        }
    }

    /// Takes over what another worker has stored.
    pub async fn refresh(&mut self) {
        if !self.shelf.keeps() {
            return;
        }
        if !self.unnoted.is_empty() && self.update(|_| ()).await.is_ok() {
            let file = self.shelf.state_file();
            tracing::info!(target: "pawl::registry", "what was dropped meanwhile is noted in {file}");
        }
        let (shelf, known) = (self.shelf.clone(), self.stamp);
        let read = blocking(move || (shelf.stamp() != known).then(|| shelf.read()).transpose()).await;
        match &read {
            Ok(Some((state, stamp))) => {
                self.found(state);
                self.state = Arc::new(self.with_unnoted(state.clone()));
                (self.stored, self.stamp) = (state.clone(), *stamp);
            }
            Err(e) if !self.unreadable => tell_unreadable(&self.shelf, e),
            _ => {}
        }
        self.unreadable = read.is_err();
        self.catch_up().await;
        self.take_over().await;
    }

    /// Notes what others have stored, if they have.
    fn found(&mut self, stored: &State) {
        if *stored != self.stored {
            let before = self.theirs.take().map_or_else(|| self.state.clone(), |(before, _)| before);
            self.theirs = Some((before, Arc::new(stored.clone())));
        }
    }

    /// Of what others noted who do not have the routes that are here.
    pub(super) async fn catch_up(&mut self) {
        let mut after = State::clone(&self.state);
        after.catch_up(&self.specs(), now_ms());
        // What can't be stored holds here all the same.
        if after != *self.state && self.update(|_| ()).await.is_err() {
            self.state = Arc::new(after);
        }
    }

    fn with_unnoted(&self, mut state: State) -> State {
        let specs = self.specs();
        state.catch_up(&specs, now_ms());
        self.unnoted.iter().for_each(|unnoted| unnoted.note(&mut state, &specs));
        state
    }

    /// Hands it on.
    pub(super) async fn take_over(&mut self) {
        let Some((before, theirs)) = self.theirs.take() else { return };
        self.publish_all().await;
        for (plugin, after) in &theirs.plugins {
            let newest = |state: &PluginState| state.newest();
            if let Some(digest) = newest(after)
                && before.plugins.get(plugin).and_then(newest) != Some(digest)
            {
                let short = digest.short();
                tracing::info!(target: "pawl::registry", "plugin {plugin}: version {short} in use, as in another worker of this folder");
            }
        }
    }

    /// Changes the state where it is stored, and here.
    pub(super) async fn update<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (shelf, state) = (self.shelf.clone(), self.stored.clone());
        let (specs, unnoted) = (self.specs(), self.unnoted.clone());
        let change = move |state: &mut State| {
            state.catch_up(&specs, now_ms());
            unnoted.iter().for_each(|unnoted| unnoted.note(state, &specs));
            change(state)
        };
        let Updated { done, before, after, stamp } = blocking(move || shelf.update(state, change)).await?;
        // The next look sees this stamp, and would not look at what others stored before.
        self.found(&before);
        self.unnoted.clear();
        (self.state, self.stored, self.stamp) = (Arc::new(after.clone()), after, stamp);
        Ok(done)
    }

    pub(super) async fn change<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, CommandError> {
        let path = self.shelf.state_file();
        self.update(change).await.map_err(|source| CommandError::NotNoted { path, source })
    }
}

pub fn tell_unreadable(shelf: &Shelf, e: &io::Error) {
    let file = shelf.state_file();
    tracing::error!(target: "pawl::registry", "can't read {file}: {e}; it is tried again, and what was read before holds meanwhile");
}
