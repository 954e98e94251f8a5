//! The files of a new project: those of the sample plugins, so that they are the same and tested with them.

/// A file's path within the project, and its text.
pub type File = (&'static str, &'static str);

/// A file of the folder of a sample.
macro_rules! files {
    ($sample:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../plugins/", $sample, "/", $path)))),+]
    };
}

/// The contract, and what the sample imports.
pub const WIT: &[File] = &[
    ("wit/world.wit", include_str!("../../../../plugins/delete-batch/wit/world.wit")),
    ("wit/deps/config/store.wit", include_str!("../../../../plugins/delete-batch/wit/deps/config/store.wit")),
    ("wit/deps/worker/worker.wit", include_str!("../../../../wit/worker.wit")),
];

pub const RUST: &[File] = files! {
    "delete-batch":
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "src/batches.rs",
    "src/lib.rs",
};

pub const PYTHON: &[File] = files! {
    "delete-batch-python":
    "README.md",
    "batches.py",
    "plugin.py",
    "pyproject.toml",
    "requirements.txt",
    "tests/__init__.py",
    "tests/test_batches.py",
};

pub const JAVASCRIPT: &[File] = files! {
    "delete-batch-js":
    "README.md",
    "package.json",
    "package-lock.json",
    "src/batches.js",
    "src/plugin.js",
    "test/batches.test.js",
};

pub const GO: &[File] = files! {
    "delete-batch-go":
    "Makefile",
    "README.md",
    "go.mod",
    "go.sum",
    "main.go",
    "batches/batches.go",
    "batches/batches_test.go",
    "exports/export_pawl_worker_handler/handler.go",
    "exports/wit_exports/wit_exports.go",
    "imports/pawl_worker_handler/empty.s",
    "imports/pawl_worker_handler/wit_bindings.go",
    "imports/wasi_config_store/empty.s",
    "imports/wasi_config_store/wit_bindings.go",
};

pub const C: &[File] = files! {
    "delete-batch-c":
    "Makefile",
    "README.md",
    "src/batches.c",
    "src/batches.h",
    "src/json.c",
    "src/json.h",
    "src/plugin.c",
    "src/text.c",
    "src/text.h",
    "test/batches_test.c",
};
