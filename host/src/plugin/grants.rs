//! What a route gives to its plugin: settings, bounds, and what it may reach. Shared by all calls of the route.

use super::capabilities::config::Settings;
use super::capabilities::http::Http;
use super::error::GrantError;
use super::gate::Gate;
use super::keyvalue::KeyValue;
use super::lanes::Cost;
use super::log_budget::LogBudget;
use super::sql::{Databases, Sql};
use super::versions::RouteSpec;
use crate::config::{Allow, Limits, OciReference, Route};
use std::collections::HashMap;
use std::sync::Arc;

/// The grants of one route.
#[derive(Debug)]
pub struct Grants {
    pub(super) route: Arc<str>,
    pub(super) config: Settings,
    pub(super) limits: Limits,
    pub(super) allow: Allow,
    pub(super) calls: Gate,
    pub(super) log: Arc<LogBudget>,
    pub(super) cost: Arc<Cost>,
    pub(super) http: Http,
    pub(super) sql: Sql,
    pub(super) keyvalue: KeyValue,
}

impl Grants {
    /// Those of a route as it is configured.
    pub fn new(route: &Route, databases: &Databases) -> Result<Arc<Grants>, GrantError> {
        let name = &route.name;
        Ok(Arc::new(Grants {
            calls: Gate::new(&route.bounds, "calls", &format!("route `{name}`")),
            cost: Arc::default(),
            log: Arc::new(LogBudget::new(route.limits.log_rate)),
            http: Http::new(name, &route.allow, &route.limits)?,
            sql: Sql::new(name, &route.allow.sql, databases),
            keyvalue: KeyValue::new(route, databases.buckets()),
            route: name.as_str().into(),
            config: Settings::new(&route.config.0),
            limits: route.limits.clone(),
            allow: route.allow.clone(),
        }))
    }

    /// The bounds of the route's calls, if so many wait for their turn that another should come again later.
    pub fn crowded(&self) -> Option<&str> {
        self.calls.crowded()
    }
}

/// The grants of all routes, by plugin and by route. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_plugin: HashMap<String, Vec<Arc<Grants>>>,
    by_route: HashMap<String, Arc<Grants>>,
    specs: Vec<RouteSpec>,
}

impl Routes {
    /// Those of the routes as they are configured. Of several each has half of the worker's `calls`, unless it says otherwise: one
    /// whose calls hang leaves the others some.
    pub fn new(routes: &[Route], calls: usize, databases: &Databases) -> Result<Routes, GrantError> {
        let mut inner = Inner::default();
        for route in routes {
            let mut bounded = route.clone();
            if routes.len() > 1 {
                bounded.bounds.at_once.get_or_insert((calls / 2).max(1));
            }
            let grants = Grants::new(&bounded, databases)?;
            inner.by_plugin.entry(route.plugin.clone()).or_default().push(grants.clone());
            inner.by_route.insert(route.name.clone(), grants);
            // What comes from a registry is what its reference names.
            if route.reference().is_none() {
                inner.specs.push(RouteSpec::from(route));
            }
        }
        Ok(Routes(Arc::new(inner)))
    }

    /// The grants of one route.
    pub fn route(&self, name: &str) -> Option<&Arc<Grants>> {
        self.0.by_route.get(name)
    }

    /// Whether one of them, as far as they are known, calls a plugin of the folder.
    pub(super) fn need_folder(&self) -> bool {
        let plugins = &self.0.by_plugin;
        plugins.is_empty() || plugins.keys().any(|plugin| !OciReference::is_meant(plugin))
    }

    /// What the routes of the folder's plugins say of versions.
    pub(super) fn specs(&self) -> &[RouteSpec] {
        &self.0.specs
    }

    pub(super) fn spec(&self, route: &str) -> Option<&RouteSpec> {
        self.0.specs.iter().find(|spec| spec.name == route)
    }

    /// Those of the routes that call a plugin.
    pub(super) fn of_plugin(&self, name: &str) -> &[Arc<Grants>] {
        self.0.by_plugin.get(name).map_or(&[], Vec::as_slice)
    }
}
