//! Takes keys out of a TOML table one by one, notes every fault, and knows which keys were left over.

use super::fault::Fault;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What reading needs everywhere: the faults so far, and the environment.
pub struct Notes<'e> {
    pub faults: Vec<Fault>,
    environment: &'e dyn Fn(&str) -> Option<String>,
}

/// A value with where it stands.
pub struct Found<T> {
    pub value: T,
    pub span: Range<usize>,
    pub key: String,
}

/// A table that is being read.
pub struct Table<'i> {
    path: String,
    entries: Vec<Entry<'i>>,
    known: Vec<&'static str>,
    pub span: Range<usize>,
}

struct Entry<'i> {
    key: String,
    key_span: Range<usize>,
    value: Spanned<DeValue<'i>>,
}

impl<'e> Notes<'e> {
    pub fn new(environment: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Notes { faults: Vec::new(), environment }
    }

    pub fn fault(&mut self, span: Range<usize>, key: &str, message: impl Into<String>) {
        self.faults.push(Fault { span, key: key.to_owned(), message: message.into() });
    }

    /// A text with `${NAME}` replaced, or none if a variable is missing.
    fn substitute(&mut self, text: &str, span: &Range<usize>, key: &str) -> Option<String> {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            result.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                result.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let Some(end) = after.find('}') else {
                    self.fault(span.clone(), key, "`${` without `}`; a `$` that means itself is written `$$`");
                    return None;
                };
                let name = &after[..end];
                match (self.environment)(name) {
                    Some(value) => result.push_str(&value),
                    None => {
                        self.fault(span.clone(), key, format!("the environment variable `{name}` is not set"));
                        return None;
                    }
                }
                rest = &after[end + 1..];
            } else {
                result.push('$');
            }
        }
        result.push_str(rest);
        Some(result)
    }
}

impl<'i> Table<'i> {
    pub fn new(path: String, span: Range<usize>, table: DeTable<'i>) -> Self {
        let mut entries: Vec<Entry<'i>> = table
            .into_iter()
            .map(|(key, value)| Entry { key_span: key.span(), key: key.into_inner().into_owned(), value })
            .collect();
        // In the order of the file, not of the alphabet.
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { path, entries, known: Vec::new(), span }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<Found<DeValue<'i>>> {
        self.known.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(at);
        Some(Found { span: entry.value.span(), key: self.path_of(key), value: entry.value.into_inner() })
    }

    /// A text, with the environment's values in it.
    pub fn text(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Found<String>> {
        let found = self.take(key)?;
        let value = text_of(&found, notes)?;
        Some(Found { value, span: found.span, key: found.key })
    }

    /// A text that `T` reads.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let found = self.text(key, notes)?;
        match parse(&found.value) {
            Ok(value) => Some(Found { value, span: found.span, key: found.key }),
            Err(message) => {
                notes.fault(found.span, &found.key, message);
                None
            }
        }
    }

    /// The texts of a list, each read by `parse`.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<Found<T>> {
        let mut parsed = Vec::new();
        for item in self.items(key, notes) {
            let Some(text) = text_of(&item, notes) else { continue };
            match parse(&text) {
                Ok(value) => parsed.push(Found { value, span: item.span, key: item.key }),
                Err(message) => notes.fault(item.span, &item.key, message),
            }
        }
        parsed
    }

    /// The same for a list that would mean the opposite of what it says if nothing were in it; `otherwise`: what to do instead.
    pub fn filled_list<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes<'_>,
        otherwise: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let is_empty = |value: &DeValue<'_>| matches!(value, DeValue::Array(array) if array.is_empty());
        let named = self.entries.iter().find(|entry| entry.key == key);
        let empty = named.filter(|entry| is_empty(entry.value.get_ref())).map(|entry| entry.value.span());
        if let Some(span) = empty {
            notes.fault(span, &self.path_of(key), format!("is empty; {otherwise}"));
        }
        self.list(key, notes, parse).into_iter().map(|found| found.value).collect()
    }

    /// A list of tables in which a text stands for a table that holds only that, under `main`.
    pub fn list_of_tables(&mut self, key: &'static str, main: &'static str, notes: &mut Notes<'_>) -> Vec<Table<'i>> {
        let mut tables = Vec::new();
        for item in self.items(key, notes) {
            match item.value {
                DeValue::Table(table) => tables.push(Table::new(item.key, item.span, table)),
                value @ DeValue::String(_) => {
                    let value = Spanned::new(item.span.clone(), value);
                    let entry = Entry { key: main.to_owned(), key_span: item.span.clone(), value };
                    tables.push(Table { path: item.key, entries: vec![entry], known: Vec::new(), span: item.span });
                }
                other => {
                    let message = format!("is {}; a text in quotes or a table is expected", describe(&other));
                    notes.fault(item.span, &item.key, message);
                }
            }
        }
        tables
    }

    fn items(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Vec<Found<DeValue<'i>>> {
        let Some(found) = self.take(key) else { return Vec::new() };
        let DeValue::Array(array) = found.value else {
            let message = format!("is {}, not a list; write it in [ ]", describe(&found.value));
            notes.fault(found.span, &found.key, message);
            return Vec::new();
        };
        let item = |(index, item): (usize, Spanned<DeValue<'i>>)| Found {
            span: item.span(),
            key: format!("{}[{index}]", found.key),
            value: item.into_inner(),
        };
        array.into_iter().enumerate().map(item).collect()
    }

    /// The tables in a table, by name.
    pub fn named_tables(self, notes: &mut Notes<'_>) -> Vec<(String, Table<'i>)> {
        let mut tables = Vec::new();
        for entry in self.entries {
            let (path, span) = (format!("{}.{}", self.path, entry.key), entry.value.span());
            match entry.value.into_inner() {
                DeValue::Table(table) => tables.push((entry.key, Table::new(path, span, table))),
                other => {
                    let message = format!("is {}, not a table; write it as [{path}]", describe(&other));
                    notes.fault(span, &path, message);
                }
            }
        }
        tables
    }

    /// A text that must be there.
    pub fn required(&mut self, key: &'static str, example: &str, notes: &mut Notes<'_>) -> Option<Found<String>> {
        if !self.entries.iter().any(|entry| entry.key == key) {
            self.known.push(key);
            notes.fault(
                self.span.clone(),
                &self.path_of(key),
                format!("is missing; for example {key} = \"{example}\""),
            );
            return None;
        }
        let found = self.text(key, notes)?;
        if found.value.trim().is_empty() {
            notes.fault(found.span, &found.key, "is empty");
            return None;
        }
        Some(found)
    }

    pub fn duration(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Found<Duration>> {
        self.parsed(key, notes, |text| {
            humantime::parse_duration(text)
                .map_err(|e| format!("is no duration ({e}); write it like \"500ms\", \"15s\", \"5m\" or \"7d\""))
        })
    }

    /// A duration that is longer than nothing.
    pub fn positive_duration(&mut self, key: &'static str, default: Duration, notes: &mut Notes<'_>) -> Duration {
        match self.duration(key, notes) {
            Some(found) if found.value.is_zero() => {
                notes.fault(found.span, &found.key, "must be longer than 0");
                default
            }
            Some(found) => found.value,
            None => default,
        }
    }

    /// A size: a text with a unit, or a number of bytes.
    pub fn size(&mut self, key: &'static str, default: usize, notes: &mut Notes<'_>) -> usize {
        let Some(found) = self.take(key) else { return default };
        let size = match &found.value {
            DeValue::Integer(_) => integer_of(&found.value),
            DeValue::String(_) => {
                let Some(text) = text_of(&found, notes) else { return default };
                bytesize::ByteSize::from_str(&text).ok().map(|size| size.0)
            }
            _ => None,
        };
        match size.and_then(|size| usize::try_from(size).ok()) {
            Some(size) if size > 0 => size,
            _ => {
                let message = "is no size above 0; write it like \"64MiB\", \"1MB\" or 65536";
                notes.fault(found.span, &found.key, message);
                default
            }
        }
    }

    /// A whole number from 1.
    pub fn count(&mut self, key: &'static str, default: usize, most: usize, notes: &mut Notes<'_>) -> usize {
        let Some(found) = self.take(key) else { return default };
        match integer_of(&found.value).and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (1..=most).contains(&number) => number,
            _ => {
                notes.fault(found.span, &found.key, format!("is no whole number from 1 to {most}"));
                default
            }
        }
    }

    /// A number that `allowed` takes.
    pub fn number(
        &mut self,
        key: &'static str,
        default: f64,
        allowed: impl FnOnce(f64) -> bool,
        message: &str,
        notes: &mut Notes<'_>,
    ) -> f64 {
        let Some(found) = self.take(key) else { return default };
        let number = match &found.value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            other => integer_of(other).map(|integer| integer as f64),
        };
        match number {
            Some(number) if allowed(number) => number,
            _ => {
                notes.fault(found.span, &found.key, message);
                default
            }
        }
    }

    pub fn boolean(&mut self, key: &'static str, default: bool, notes: &mut Notes<'_>) -> bool {
        let Some(found) = self.take(key) else { return default };
        match found.value {
            DeValue::Boolean(value) => value,
            _ => {
                notes.fault(found.span, &found.key, "is neither true nor false");
                default
            }
        }
    }

    pub fn table(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Table<'i>> {
        let found = self.take(key)?;
        match found.value {
            DeValue::Table(table) => Some(Table::new(found.key, found.span, table)),
            other => {
                let message = format!("is {}, not a table; write it as [{}]", describe(&other), found.key);
                notes.fault(found.span, &found.key, message);
                None
            }
        }
    }

    /// An array of tables.
    pub fn tables(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Vec<Table<'i>> {
        let Some(found) = self.take(key) else { return Vec::new() };
        let DeValue::Array(array) = found.value else {
            let message = format!("is {}, not a list of tables; write each as [[{key}]]", describe(&found.value));
            notes.fault(found.span, &found.key, message);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (index, item) in array.into_iter().enumerate() {
            let (path, span) = (format!("{}[{index}]", found.key), item.span());
            match item.into_inner() {
                DeValue::Table(table) => tables.push(Table::new(path, span, table)),
                other => {
                    let message = format!("is {}, not a table; write it as [[{key}]]", describe(&other));
                    notes.fault(span, &path, message);
                }
            }
        }
        tables
    }

    /// Everything else, as texts: for tables whose keys are not ours.
    pub fn texts(self, notes: &mut Notes<'_>) -> Vec<(Found<String>, String)> {
        let path = self.path.clone();
        let mut texts = Vec::new();
        for entry in self.entries {
            let key = format!("{path}.\"{}\"", entry.key);
            let found = Found { span: entry.value.span(), key, value: entry.value.into_inner() };
            let text = match &found.value {
                DeValue::String(_) => text_of(&found, notes),
                DeValue::Boolean(value) => Some(value.to_string()),
                DeValue::Float(float) => Some(float.as_str().to_owned()),
                value @ DeValue::Integer(_) => match integer_of(value) {
                    Some(number) => Some(number.to_string()),
                    // Negative ones are for others to judge.
                    None => value.as_integer().map(|integer| integer.as_str().to_owned()),
                },
                other => {
                    let message = format!("is {}; a text, a number or a boolean is expected", describe(other));
                    notes.fault(found.span.clone(), &found.key, message);
                    None
                }
            };
            if let Some(value) = text {
                texts.push((Found { value, span: found.span, key: found.key }, entry.key));
            }
        }
        texts
    }

    /// Whatever nobody asked for is a fault, with the nearest known name.
    pub fn finish(self, notes: &mut Notes<'_>) {
        for entry in &self.entries {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, &entry.key), *known))
                .min()
                .filter(|(distance, known)| *distance <= (known.len() / 3).max(1));
            let message = match nearest {
                Some((_, known)) => format!("is no known key; did you mean `{known}`?"),
                None => format!("is no known key; known here: {}", self.known.join(", ")),
            };
            notes.fault(entry.key_span.clone(), &self.path_of(&entry.key), message);
        }
    }
}

fn text_of(found: &Found<DeValue<'_>>, notes: &mut Notes<'_>) -> Option<String> {
    match found.value.as_str() {
        Some(text) => notes.substitute(text, &found.span, &found.key),
        None => {
            let message = format!("is {}; a text in quotes is expected", describe(&found.value));
            notes.fault(found.span.clone(), &found.key, message);
            None
        }
    }
}

/// A whole number from 0.
fn integer_of(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) => "a whole number".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}
