//! Every fault at once, with line, key and fix; no input panics; no secret is repeated.

use super::{ConfigError, parse, sample};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const SECRET: &str = "hunter2-hunter2";

fn environment(name: &str) -> Option<String> {
    (name == "SECRET").then(|| SECRET.to_owned())
}

/// Each `faults/NAME.toml` has its errors in `faults/NAME.err`; with UPDATE=1 in the environment these are written.
#[test]
fn faulty_files_are_told_as_written_beside_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/faults");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let error = parse(&text, "pawl.toml", Path::new("."), environment).unwrap_err().to_string();
        assert!(!error.contains(SECRET), "{error}");
        let expected = file.with_extension("err");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &error).unwrap();
        }
        let told = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(error, told, "{} (UPDATE=1 writes it)", expected.display());
    }
}

#[test]
fn where_secrets_belong_they_are_never_printed() {
    let text = r#"
[kafka]
brokers = "b"
properties = { "sasl.password" = "${SECRET}" }
[resonate]
url = "http://localhost"
token = "${SECRET}"
[[route]]
topic = "t"
plugin = "p"
config = { api-key = "${SECRET}" }
"#;
    let config = parse(text, "pawl.toml", Path::new("."), environment).unwrap();
    assert_eq!(config.routes[0].config.0["api-key"], SECRET);
    assert!(!format!("{config:?}").contains(SECRET));
}

/// The sample with pieces taken out, doubled and replaced: close enough to right to get far.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        Just("${SECRET}".to_owned()),
        Just("[[route]]\n".to_owned()),
        Just("[kafka.properties]\n".to_owned()),
        "[\\[\\]{}=\"'#.$,é \n\t0-9a-z-]{0,6}",
    ];
    prop::collection::vec((0.0..1.0f64, 0usize..12, piece), 1..6).prop_map(|damages| {
        let mut text: Vec<char> = sample().replace("\n# ", "\n").chars().collect();
        for (place, length, piece) in damages {
            let start = (place * text.len() as f64) as usize;
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse(&text, "pawl.toml", Path::new("."), environment).map_err(|error| error.to_string());
    }

    #[test]
    fn no_damage_panics_or_tells_a_secret(text in damaged()) {
        if let Err(error) = parse(&text, "pawl.toml", Path::new("."), environment) {
            prop_assert!(!error.to_string().contains(SECRET));
            let ConfigError::Faults { faults, .. } = error else { panic!("{error}") };
            for fault in faults {
                prop_assert!(fault.span.start <= text.len() && !fault.message.is_empty());
            }
        }
    }
}
