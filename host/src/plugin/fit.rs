//! Whether a compiled component fits the host: it exports the handler, and the host offers what it imports.

use super::bindings::{HANDLER, HANDLER_VERSION};
use super::capabilities::{self, State, satisfies};
use super::error::LoadError;
use super::grants::Grants;
use super::handler::Handler;
use std::sync::Arc;
use wasmtime::component::{Component, Linker};

/// Answers what calls start from, or every fault at once. Each of `routes` must give what the component imports.
pub(super) fn check(
    component: &Component,
    linker: &Linker<State>,
    routes: &[Arc<Grants>],
) -> Result<Handler, LoadError> {
    let refused = routes.iter().flat_map(|route| grant_faults(component, route));
    let faults: Vec<String> =
        export_fault(component).into_iter().chain(import_fault(component)).chain(refused).collect();
    if !faults.is_empty() {
        return Err(LoadError::Unfit(faults));
    }
    let pre = linker.instantiate_pre(component).map_err(|e| LoadError::Unfit(vec![format!("{e:#}")]))?;
    Handler::new(pre)
}

fn export_fault(component: &Component) -> Option<String> {
    let ty = component.component_type();
    let wanted = format!("{HANDLER}@{HANDLER_VERSION}");
    let exports: Vec<&str> = ty.exports(component.engine()).map(|(name, _)| name).collect();
    if exports.iter().any(|name| satisfies(&wanted, name)) {
        return None;
    }
    let spoken = HANDLER_VERSION.rsplit_once('.').map_or(HANDLER_VERSION, |(compatible, _)| compatible);
    let others: Vec<&str> = exports.iter().copied().filter(|name| name.split('@').next() == Some(HANDLER)).collect();
    Some(if !others.is_empty() {
        format!("exports {}; this host speaks {spoken}.x", others.join(" and "))
    } else if exports.is_empty() {
        format!("exports nothing: a plugin exports {wanted}")
    } else {
        format!("exports {} but not {wanted}", exports.join(", "))
    })
}

/// What it imports and the route does not allow, with the line that would.
fn grant_faults(component: &Component, route: &Grants) -> Vec<String> {
    let ty = component.component_type();
    let imports: Vec<&str> = ty.imports(component.engine()).map(|(name, _)| name).collect();
    capabilities::missing_grants(&imports, &route.allow)
        .map(|(import, line)| {
            format!(
                "imports {import}, which route `{}` does not allow; if it may, add to the route: {line}",
                route.route
            )
        })
        .collect()
}

fn import_fault(component: &Component) -> Option<String> {
    let ty = component.component_type();
    let missing: Vec<&str> =
        ty.imports(component.engine()).map(|(name, _)| name).filter(|name| !capabilities::offers(name)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "imports {}, which this host does not offer (it offers {})",
            missing.join(", "),
            capabilities::offered_packages()
        )
    })
}
