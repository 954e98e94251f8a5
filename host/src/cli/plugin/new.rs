//! `pawl plugin new`: writes a project with the contract, a working example, its tests and a README that says how to build it.

use super::name::PluginName;
use super::templates::{self, File};
use crate::cli::exit::UsageError;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use wasi_preview1_component_adapter_provider as adapter;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pawl plugin new --lang python refund-orders\n  cat refund-orders/README.md")]
pub struct NewArgs {
    /// The language to write it in
    #[arg(long, value_enum)]
    lang: Lang,
    /// The plugin's name: lower-case words joined by dashes
    name: PluginName,
    /// The folder to make; by default the plugin's name
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    Rust,
    Python,
    Js,
    Go,
    C,
}

impl Lang {
    fn files(self) -> &'static [File] {
        match self {
            Lang::Rust => templates::RUST,
            Lang::Python => templates::PYTHON,
            Lang::Js => templates::JAVASCRIPT,
            Lang::Go => templates::GO,
            Lang::C => templates::C,
        }
    }

    /// What the sample is called; another name stands for it in the project.
    fn sample(self) -> &'static str {
        match self {
            Lang::Rust => "delete-batch",
            Lang::Python => "delete-batch-python",
            Lang::Js => "delete-batch-js",
            Lang::Go => "delete-batch-go",
            Lang::C => "delete-batch-c",
        }
    }

    fn ignored(self) -> &'static str {
        match self {
            Lang::Rust => "target/\n*.wasm\n",
            Lang::Python => ".venv/\n__pycache__/\n*.wasm\n",
            Lang::Js => "node_modules/\n*.wasm\n",
            // The adapter is a source.
            Lang::Go | Lang::C => "build/\n*.wasm\n!wasi_snapshot_preview1.reactor.wasm\n",
        }
    }

    fn needs_adapter(self) -> bool {
        matches!(self, Lang::Go | Lang::C)
    }
}

pub fn run(args: &NewArgs) -> anyhow::Result<()> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(args.name.kebab()));
    match fs::create_dir(&dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let text = format!(
                "{} exists already, and nothing in it was touched: choose another name or --dir",
                dir.display()
            );
            return Err(UsageError(text).into());
        }
        Err(e) => return Err(e).with_context(|| format!("can't create the folder {}", dir.display())),
    }
    for (path, bytes) in files(args.lang, &args.name) {
        write(&dir.join(path), &bytes)?;
    }
    println!("{}: a plugin that works as it is; its README.md says how to build it", dir.display());
    Ok(())
}

fn files(lang: Lang, name: &PluginName) -> Vec<(&'static str, Vec<u8>)> {
    let renamed = |text: &str| {
        let text = text.replace(lang.sample(), name.kebab()).replace("delete-batch", name.kebab());
        text.replace("delete_batch", &name.snake()).replace("DeleteBatch", &name.pascal()).into_bytes()
    };
    let texts = lang.files().iter().chain(templates::WIT).map(|(path, text)| (*path, renamed(text)));
    let mut files: Vec<_> = texts.collect();
    files.push((".gitignore", lang.ignored().as_bytes().to_vec()));
    if lang.needs_adapter() {
        let bytes = adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER.to_vec();
        files.push(("wasi_snapshot_preview1.reactor.wasm", bytes));
    }
    files
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).and_then(|()| fs::write(path, bytes));
    written.with_context(|| format!("can't write {}; remove what was written before another try", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANGS: [Lang; 5] = [Lang::Rust, Lang::Python, Lang::Js, Lang::Go, Lang::C];

    #[test]
    fn nothing_is_left_of_the_sample_s_name() {
        let name: PluginName = "refund-orders".parse().unwrap();
        for lang in LANGS {
            for (path, bytes) in files(lang, &name) {
                let text = String::from_utf8_lossy(&bytes).to_lowercase();
                assert!(!text.contains("delete-batch") && !text.contains("delete_batch"), "{lang:?}: {path}");
            }
        }
    }

    #[test]
    fn a_folder_that_exists_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "text").unwrap();
        let name = "refund-orders".parse().unwrap();
        let error = run(&NewArgs { lang: Lang::Rust, name, dir: Some(dir.path().to_owned()) }).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("exists already"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_can_t_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing/project");
        let name = "refund-orders".parse().unwrap();
        let error = run(&NewArgs { lang: Lang::C, name, dir: Some(missing.clone()) }).unwrap_err();
        assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    }
}
