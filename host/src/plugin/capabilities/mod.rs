//! What the host offers to components: one file per capability, all of the same shape, named once in [`ALL`].

pub(super) mod config;
pub(super) mod http;
pub(super) mod keyvalue;
pub(super) mod keyvalue_draft2;
mod sql;
mod wasi;

use super::gate::Waits;
use super::grants::Grants;
use super::limits::Limiter;
use super::output::Source;
use super::sql::Effects;
use crate::config::Allow;
use std::collections::BTreeSet;
use std::sync::Arc;
use wasmtime::component::Linker;

/// Interfaces that a component may import.
struct Capability {
    /// Their full names. A component may ask for any compatible version of each.
    interfaces: &'static [&'static str],
    /// Puts them into the linker.
    link: fn(&mut Linker<State>) -> wasmtime::Result<()>,
    /// What a route must say to give it. Absent: every plugin has it.
    grant: Option<Grant>,
}

/// What a route must say to give a capability.
struct Grant {
    is_given: fn(&Allow) -> bool,
    /// An example, as it is written in pawl.toml.
    line: &'static str,
}

const ALL: &[Capability] = &[
    wasi::CAPABILITY,
    config::CAPABILITY,
    http::CAPABILITY,
    keyvalue::CAPABILITY,
    keyvalue_draft2::CAPABILITY,
    sql::CAPABILITY,
];

/// What one call's capabilities work on.
pub(super) struct State {
    pub(super) limiter: Limiter,
    pub(super) effects: Effects,
    grants: Arc<Grants>,
    source: Arc<Source>,
    wasi: wasi::State,
    http: http::State,
}

impl State {
    pub(super) fn new(grants: &Arc<Grants>, source: Arc<Source>, waits: &Waits) -> Self {
        State {
            limiter: Limiter::new(&grants.limits),
            http: http::State::new(grants, &source, waits),
            effects: Effects::new(grants, &source, waits),
            wasi: wasi::State::new(),
            grants: grants.clone(),
            source,
        }
    }
}

/// Puts all capabilities into the linker.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    ALL.iter().try_for_each(|capability| (capability.link)(linker))
}

/// Whether the host offers an import of that name.
pub(super) fn offers(import: &str) -> bool {
    let mut interfaces = ALL.iter().flat_map(|capability| capability.interfaces);
    interfaces.any(|offered| satisfies(offered, import))
}

/// Of some imports the first of each capability that is not given, with what would give it.
pub(super) fn missing_grants<'a>(
    imports: &'a [&'a str],
    allow: &'a Allow,
) -> impl Iterator<Item = (&'a str, &'static str)> {
    ALL.iter().filter_map(|capability| {
        let grant = capability.grant.as_ref().filter(|grant| !(grant.is_given)(allow))?;
        let wanted = |import: &&&str| capability.interfaces.iter().any(|offered| satisfies(offered, import));
        Some((*imports.iter().find(wanted)?, grant.line))
    })
}

/// The packages of all that is offered, for people.
pub(super) fn offered_packages() -> String {
    let interfaces = ALL.iter().flat_map(|capability| capability.interfaces);
    let packages: BTreeSet<&str> = interfaces.filter_map(|name| name.split('/').next()).collect();
    packages.into_iter().collect::<Vec<_>>().join(", ")
}

/// Whether an interface of the first name serves where one of the second is wanted, by the rules of semantic versions.
pub(super) fn satisfies(offered: &str, wanted: &str) -> bool {
    if offered == wanted {
        return true;
    }
    let (Some(offered), Some(wanted)) = (offered.rsplit_once('@'), wanted.rsplit_once('@')) else { return false };
    let compatible = compatible_part(offered.1);
    offered.0 == wanted.0 && compatible.is_some() && compatible == compatible_part(wanted.1)
}

/// What two compatible versions have in common: the major version, or the minor one while that is 0. A pre-release is
/// compatible with nothing else.
fn compatible_part(version: &str) -> Option<(u64, u64, u64)> {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().ok());
    let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    match (numbers.next(), major, minor) {
        (Some(_), _, _) => None,
        (None, 0, 0) => Some((0, 0, patch)),
        (None, 0, minor) => Some((0, minor, 0)),
        (None, major, _) => Some((major, 0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_satisfy_by_semantic_versioning() {
        assert!(satisfies("a:b/c@0.2.12", "a:b/c@0.2.0"));
        assert!(satisfies("a:b/c@1.2.0", "a:b/c@1.9.3"));
        assert!(satisfies("a:b/c@0.2.0-rc.1", "a:b/c@0.2.0-rc.1"));
        for (offered, wanted) in [
            ("a:b/c@0.2.12", "a:b/c@0.3.0"),
            ("a:b/c@0.2.12", "a:b/d@0.2.12"),
            ("a:b/c@0.2.0", "a:b/c@0.2.0-rc.1"),
            ("a:b/c@0.2.0-rc.1", "a:b/c@0.2.0-rc.2"),
            ("a:b/c@0.0.1", "a:b/c@0.0.2"),
            ("a:b/c@0.2.0", "a:b/c"),
            ("a:b/c@0.2.0", "c"),
        ] {
            assert!(!satisfies(offered, wanted), "{offered} {wanted}");
        }
    }

    #[test]
    fn the_packages_are_listed_once() {
        assert_eq!(
            offered_packages(),
            "pawl:worker, wasi:cli, wasi:clocks, wasi:config, wasi:filesystem, wasi:http, wasi:io, \
             wasi:keyvalue, wasi:random, wasi:sockets"
        );
    }
}
