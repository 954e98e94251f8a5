//! What a component is built from, as one number, so that it is built again only when something changed.

use super::{Component, Language, plugins_dir};
use anyhow::Context;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// Folders that tools make when somebody builds by hand: no sources.
const NOT_SOURCES: [&str; 5] = ["build", "node_modules", ".venv", "target", "__pycache__"];

/// The hash of all inputs. Another version of Rust may hash differently, which costs one more build.
pub struct Inputs(u64);

impl Inputs {
    /// `recipe`: whatever else decides the result, for example the versions of the tools.
    pub fn of(component: &Component, recipe: &str) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        (recipe, component.features).hash(&mut hasher);
        add(&component.source(), &mut hasher)?;
        for dir in others(component) {
            add(&crate::root().join("plugins").join(dir), &mut hasher)?;
        }
        Ok(Inputs(hasher.finish()))
    }

    /// Whether the component was built from just these.
    pub fn are_those_of(&self, component: &Component) -> bool {
        component.file().exists() && fs::read_to_string(kept(component)).is_ok_and(|text| text == self.to_text())
    }

    /// Says that the component was built from these.
    pub fn keep(&self, component: &Component) -> anyhow::Result<()> {
        let path = kept(component);
        let written =
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).and_then(|()| fs::write(&path, self.to_text()));
        written.with_context(|| format!("can't write {}", path.display()))
    }

    fn to_text(&self) -> String {
        format!("{:016x}\n", self.0)
    }
}

fn kept(component: &Component) -> PathBuf {
    plugins_dir().join(".inputs").join(component.output)
}

/// Sources outside the component's own folder.
fn others(component: &Component) -> &'static [&'static str] {
    match component.language {
        Language::C if component.dir.starts_with("fixtures/") => &["delete-batch-c/src"],
        // Not every fixture has a link to the contract.
        Language::Rust => &["../wit", "../host/wit"],
        // The tools are those of the sample.
        Language::Python => &["delete-batch-python/requirements.txt"],
        Language::JavaScript => &["delete-batch-js/package-lock.json"],
        _ => &[],
    }
}

/// Follows links: the contract is one.
fn add(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    if !path.is_dir() {
        fs::read(path)?.hash(hasher);
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    entries.retain(|name| name.to_str().is_none_or(|name| !NOT_SOURCES.contains(&name) && !name.ends_with(".wasm")));
    entries.sort();
    for name in entries {
        name.hash(hasher);
        add(&path.join(name), hasher)?;
    }
    Ok(())
}
