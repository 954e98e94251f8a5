//! The name of a plugin, in the forms that the languages want it in.

use std::str::FromStr;

/// What a name may be: a file, a crate, a package of Go and npm, an identifier of WIT. Words of a language are none of these.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "bool",
    "borrow",
    "box",
    "break",
    "build",
    "char",
    "cmd",
    "const",
    "constructor",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "error-context",
    "export",
    "extern",
    "f32",
    "f64",
    "false",
    "final",
    "flags",
    "fn",
    "for",
    "from",
    "func",
    "future",
    "gen",
    "go",
    "if",
    "impl",
    "import",
    "in",
    "include",
    "interface",
    "internal",
    "let",
    "list",
    "loop",
    "macro",
    "main",
    "map",
    "match",
    "mod",
    "move",
    "mut",
    "node",
    "npm",
    "option",
    "override",
    "own",
    "package",
    "priv",
    "proc-macro",
    "pub",
    "record",
    "ref",
    "resource",
    "result",
    "return",
    "s16",
    "s32",
    "s64",
    "s8",
    "self",
    "static",
    "std",
    "stream",
    "string",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "tuple",
    "type",
    "typeof",
    "u16",
    "u32",
    "u64",
    "u8",
    "unsafe",
    "unsized",
    "use",
    "variant",
    "vendor",
    "virtual",
    "where",
    "while",
    "with",
    "world",
    "yield",
];

const LONGEST: usize = 64;

/// Lower-case words joined by dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginName(String);

impl FromStr for PluginName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        if !name.split('-').all(is_word) || name.len() > LONGEST {
            return Err(format!(
                "a plugin's name is made of lower-case words that begin with a letter, joined by dashes, at most {LONGEST} \
                 characters, like `delete-batch`"
            ));
        }
        if RESERVED.binary_search(&name).is_ok() {
            return Err(format!("`{name}` is a word of the languages that plugins are written in; try `my-{name}`"));
        }
        Ok(PluginName(name.to_owned()))
    }
}

impl PluginName {
    /// `delete-batch`
    pub fn kebab(&self) -> &str {
        &self.0
    }

    /// `delete_batch`
    pub fn snake(&self) -> String {
        self.0.replace('-', "_")
    }

    /// `DeleteBatch`
    pub fn pascal(&self) -> String {
        let upper = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        self.0.split('-').map(upper).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_every_language_takes() {
        for name in ["a", "delete-batch", "v2", "a1-b2"] {
            assert_eq!(name.parse::<PluginName>().unwrap().kebab(), name);
        }
        let long = "x".repeat(65);
        for name in
            ["", "-", "a-", "-a", "a--b", "A", "a_b", "a.b", "../a", "a/b", "1a", "a-1", "é", "a b", long.as_str()]
        {
            assert!(name.parse::<PluginName>().unwrap_err().contains("like `delete-batch`"), "{name}");
        }
        for name in ["world", "fn", "test", "abstract", "yield"] {
            assert!(name.parse::<PluginName>().unwrap_err().contains(&format!("try `my-{name}`")), "{name}");
        }
    }

    #[test]
    fn reserved_words_are_sorted() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn forms_for_other_languages() {
        let name: PluginName = "delete-batch2".parse().unwrap();
        assert_eq!((name.snake().as_str(), name.pascal().as_str()), ("delete_batch2", "DeleteBatch2"));
    }
}
