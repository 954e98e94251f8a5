//! `cargo xtask plugins`: builds the sample plugins and the test components of every language into target/plugins.

mod c;
mod go;
mod inputs;
mod javascript;
mod native_tests;
mod python;
mod rust;
mod tools;

use anyhow::{Context, bail};
use inputs::Inputs;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use native_tests::NativeTests;
pub use tools::{dir as tools_dir, install_debian, path as path_with_tools};

#[derive(Debug, clap::Args)]
pub struct PluginsArgs {
    /// Only these: languages (rust, python, js, go, c) or components (delete-batch-python)
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Instead, the Rust project in this folder, into DIR/PACKAGE.wasm: also where rustup can't add the target wasm32-wasip2
    #[arg(long, value_name = "DIR", conflicts_with = "only")]
    project: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    Python,
    JavaScript,
    Go,
    C,
}

const LANGUAGES: [Language; 5] = [Language::Rust, Language::Python, Language::JavaScript, Language::Go, Language::C];

/// One component to build.
struct Component {
    language: Language,
    /// Its folder below `plugins/`.
    dir: &'static str,
    /// Cargo features; other languages have none.
    features: &'static str,
    /// The file below `target/plugins/`, without `.wasm`.
    output: &'static str,
}

const fn rust(dir: &'static str, features: &'static str, output: &'static str) -> Component {
    Component { language: Language::Rust, dir, features, output }
}

const fn other(language: Language, dir: &'static str, output: &'static str) -> Component {
    Component { language, dir, features: "", output }
}

const COMPONENTS: &[Component] = &[
    rust("delete-batch", "", "delete-batch"),
    rust("delete-batch", "purge-log", "delete-batch-v2"),
    rust("fixtures/scripted", "", "fixtures/scripted"),
    rust("fixtures/scripted", "variant-b", "fixtures/scripted-b"),
    rust("fixtures/scripted", "variant-failing", "fixtures/scripted-failing"),
    rust("fixtures/capable", "", "fixtures/capable"),
    rust("fixtures/sql", "", "fixtures/sql"),
    rust("fixtures/keyvalue", "", "fixtures/keyvalue"),
    rust("fixtures/keyvalue", "sql", "fixtures/keyvalue-sql"),
    rust("fixtures/keyvalue", "draft2", "fixtures/keyvalue-draft2"),
    rust("fixtures/other-version", "", "fixtures/other-version"),
    rust("fixtures/foreign-import", "", "fixtures/foreign-import"),
    rust("fixtures/conformance/rust", "", "fixtures/conformance-rust"),
    other(Language::Python, "delete-batch-python", "delete-batch-python"),
    other(Language::Python, "fixtures/conformance/python", "fixtures/conformance-python"),
    other(Language::JavaScript, "delete-batch-js", "delete-batch-js"),
    other(Language::JavaScript, "fixtures/conformance/js", "fixtures/conformance-js"),
    other(Language::Go, "delete-batch-go", "delete-batch-go"),
    other(Language::Go, "fixtures/conformance/go", "fixtures/conformance-go"),
    other(Language::C, "delete-batch-c", "delete-batch-c"),
    other(Language::C, "fixtures/conformance/c", "fixtures/conformance-c"),
];

/// The smallest core module: what a component is not.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

impl Language {
    fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Python => "python",
            Language::JavaScript => "js",
            Language::Go => "go",
            Language::C => "c",
        }
    }

    /// Builds these components; an error names what could not be built.
    fn build(self, components: &[&Component]) -> anyhow::Result<()> {
        match self {
            Language::Rust => build_stale(components, rust::RECIPE, rust::build),
            Language::Python => build_stale(components, python::RECIPE, python::build),
            Language::JavaScript => build_stale(components, javascript::RECIPE, javascript::build),
            Language::Go => build_stale(components, go::RECIPE, go::build),
            Language::C => build_stale(components, c::RECIPE, c::build),
        }
    }
}

impl Component {
    fn source(&self) -> PathBuf {
        crate::root().join("plugins").join(self.dir)
    }

    /// Where it is built to.
    fn file(&self) -> PathBuf {
        plugins_dir().join(format!("{}.wasm", self.output))
    }

    /// A folder of its own for what arises on the way.
    fn build_dir(&self) -> anyhow::Result<PathBuf> {
        let dir = crate::target_dir().join("plugins-build").join(self.output);
        fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        absolute(&dir)
    }

    /// The world of its contract, as the `wit` folder beside it declares it.
    fn world(&self) -> &'static str {
        if self.dir.starts_with("fixtures/") {
            "test:conformance/conformance"
        } else {
            "sample:delete-batch/delete-batch"
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugins/{}", self.dir)
    }
}

/// Builds what the arguments name.
pub fn run(args: &PluginsArgs) -> anyhow::Result<bool> {
    if let Some(dir) = &args.project {
        println!("{}", rust::build_project(&absolute(dir)?)?.display());
        return Ok(true);
    }
    for name in &args.only {
        if !COMPONENTS.iter().any(|component| is_named(component, name)) {
            let languages = LANGUAGES.map(Language::name).join(", ");
            let components = COMPONENTS.iter().map(|component| component.output).collect::<Vec<_>>().join(", ");
            bail!("there is no `{name}` to build; languages are {languages}, components {components}");
        }
    }
    let wanted = |component: &Component| args.only.is_empty() || args.only.iter().any(|name| is_named(component, name));
    println!("{}", build(wanted)?.display());
    Ok(true)
}

fn is_named(component: &Component, name: &str) -> bool {
    component.language.name() == name || component.output == name
}

/// Builds everything into `target/plugins`, which it answers.
pub fn build_all() -> anyhow::Result<PathBuf> {
    build(|_| true)
}

/// The same for what is written in Rust: whoever only wants to see Pawl work needs no other language.
pub fn build_rust() -> anyhow::Result<PathBuf> {
    build(|component| component.language == Language::Rust)
}

/// The languages are built side by side: each of their tools does with little more than one core.
fn build(wanted: impl Fn(&Component) -> bool) -> anyhow::Result<PathBuf> {
    let plugins = plugins_dir();
    fs::create_dir_all(plugins.join("fixtures")).with_context(|| format!("can't create {}", plugins.display()))?;
    replace(&plugins.join("fixtures/core-module.wasm"), CORE_MODULE)?;
    let faults = std::thread::scope(|scope| {
        let mut builders = Vec::new();
        for language in LANGUAGES {
            let components = COMPONENTS.iter().filter(|component| component.language == language && wanted(component));
            let components: Vec<_> = components.collect();
            if !components.is_empty() {
                builders.push((language, scope.spawn(move || language.build(&components))));
            }
        }
        let mut faults = Vec::new();
        for (language, builder) in builders {
            match builder.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => faults.push(format!("{}: {e:#}", language.name())),
                Err(_) => faults.push(format!("{}: the builder panicked", language.name())),
            }
        }
        faults
    });
    if !faults.is_empty() {
        bail!("{}", faults.join("\n       "));
    }
    absolute(&plugins)
}

/// Builds those whose sources changed: Python and JavaScript take their time, cargo builds a crate of two feature sets anew each time,
/// and no tool is needed when there is nothing to do.
fn build_stale(
    components: &[&Component],
    recipe: &str,
    build: fn(&Component, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for component in components {
        let inputs = Inputs::of(component, recipe).with_context(|| format!("can't read {component}"))?;
        if inputs.are_those_of(component) {
            continue;
        }
        let begun = Instant::now();
        let built = component.build_dir()?.join("component.wasm");
        build(component, &built).with_context(|| format!("can't build {component}"))?;
        let bytes = fs::read(&built).with_context(|| format!("building {component} made no {}", built.display()))?;
        replace(&component.file(), &bytes)?;
        inputs.keep(component)?;
        println!("built {}.wasm in {:.1} s", component.output, begun.elapsed().as_secs_f64());
    }
    Ok(())
}

fn plugins_dir() -> PathBuf {
    crate::target_dir().join("plugins")
}

/// Commands run in other folders.
fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("{} has gone", dir.display()))
}

/// Writes a file whole, or not at all when it is what it should be already.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("can't write {}", path.display()))
}
