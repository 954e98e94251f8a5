//! What can go wrong before a component is called: in starting the engine, in loading a component, in opening the folder.

use super::oci::OciError;
use std::path::PathBuf;

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `calls` is out of range.
    #[error("`calls` of [worker] in pawl.toml is {calls}: it must be between 1 and {most}")]
    Calls {
        /// What was asked for.
        calls: usize,
        /// The most that is possible.
        most: usize,
    },
    /// The address space for all calls could not be reserved.
    #[error(
        "can't reserve memory for {calls} component calls at a time ({reserved} GiB of address space): lower `calls` of \
         [worker] in pawl.toml, or raise the process's limit of virtual memory (ulimit -v): {cause}"
    )]
    Pool {
        /// The calls that were asked for.
        calls: usize,
        /// The address space that they take.
        reserved: u64,
        /// What the system says.
        cause: String,
    },
    /// The threads that measure and spend CPU time did not start.
    #[error("can't start the threads of component calls: {0}; does the system allow so many?")]
    Threads(#[source] std::io::Error),
    /// A capability could not be linked: a fault of this program.
    #[error("can't offer the interfaces of the capabilities to components (a fault of pawl, please report it): {0}")]
    Link(String),
}

/// Why what a route allows can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The HTTP client: the system's certificates, most likely.
    #[error("can't set up HTTP for plugins: {0}")]
    Http(String),
    /// A URL or a certificate.
    #[error("[database.{name}] in pawl.toml: {fault}")]
    Database {
        /// Which one.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// Why a component is refused. The text goes on after "refused:".
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// A section goes on after the end.
    #[error("is cut off after {bytes} bytes: half-written?")]
    Truncated {
        /// What there is.
        bytes: usize,
    },
    /// No WebAssembly at all.
    #[error("is not WebAssembly: a component begins with the bytes \"\\0asm\"")]
    NotWasm,
    /// WebAssembly of the older kind.
    #[error("is a core module, not a component: build for wasm32-wasip2 or wrap it with wit-component")]
    CoreModule,
    /// Does not validate, or needs more of something than any component gets.
    #[error("does not compile: {0}")]
    Invalid(String),
    /// Exports or imports do not fit; every fault at once.
    #[error("{}", .0.join("; "))]
    Unfit(Vec<String>),
    /// The compiler broke off: a fault of this program or of the system.
    #[error("the compiler broke off: {0}")]
    Compiler(String),
    /// More than any component needs.
    #[error("is larger than {most}")]
    TooLarge {
        /// The bound, for people.
        most: String,
    },
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// Signatures are asked for, and the one that is there can't be read.
    #[error("has a {signature} that can't be read: {source}")]
    UnreadableSignature {
        /// The signature's file.
        signature: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Signatures are asked for, and there is none.
    #[error(
        "is not signed, and `trusted-keys` of [plugins] in pawl.toml asks for it: sign it (`minisign -S -m {file}`) and put \
         {signature} beside it"
    )]
    Unsigned {
        /// The component's file.
        file: String,
        /// Where its signature belongs.
        signature: String,
    },
    /// What lies where the signature belongs is something else, or half of one.
    #[error("has a {signature} that is no signature of minisign's: make it with `minisign -S -m {file}`")]
    NoSignature {
        /// The component's file.
        file: String,
        /// The signature's.
        signature: String,
    },
    /// The file itself was signed, not its hash: long the default, and no longer the tool's.
    #[error(
        "is signed in minisign's old form ({signature}): sign it again with `minisign -S -m {file}`, before its version 0.10 with -H"
    )]
    OldSignature {
        /// The component's file.
        file: String,
        /// The signature's.
        signature: String,
    },
    /// The signature is of other bytes.
    #[error(
        "is not what {signature} signs: one of the two belongs to another build, or was changed; sign this one (`minisign -S -m \
         {file}`)"
    )]
    OtherSigned {
        /// The component's file.
        file: String,
        /// The signature's.
        signature: String,
    },
    /// Somebody else signed it.
    #[error(
        "is signed ({signature}) with a key that is none of `trusted-keys` of [plugins] in pawl.toml: sign it with one of those, or \
         add this one"
    )]
    UntrustedKey {
        /// The signature's file.
        signature: String,
    },
}

impl LoadError {
    /// Whether more may make it whole: somebody may still be writing, or have its signature yet to write.
    pub(super) fn is_incomplete(&self) -> bool {
        matches!(
            self,
            LoadError::Empty
                | LoadError::Truncated { .. }
                | LoadError::Unsigned { .. }
                | LoadError::NoSignature { .. }
                | LoadError::OldSignature { .. }
                | LoadError::OtherSigned { .. }
                | LoadError::UntrustedKey { .. }
        )
    }
}

/// Why the plugins folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Something else has that name.
    #[error("the plugins folder {} is not a folder: set `dir` of [plugins] in pawl.toml to one", .0.display())]
    NotAFolder(PathBuf),
    /// What comes from registries.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// Not allowed to look inside.
    #[error("can't read the plugins folder {}: {source}; set `dir` of [plugins] in pawl.toml, or its permissions", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
