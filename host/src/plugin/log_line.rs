//! What a line of a plugin's output says: its level, if it names one, and what a JSON line is about.

use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tracing::Level;

/// The names under which loggers write the level, and the message.
const LEVEL: [&str; 5] = ["level", "severity", "levelname", "lvl", "log.level"];
const MESSAGE: [&str; 3] = ["message", "msg", "event"];
/// So many words are looked at for a level: a date, a time, a name and what stands between them.
const WORDS: usize = 8;

/// A line as it is logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogLine {
    /// Absent when the line names none.
    pub(super) level: Option<Level>,
    pub(super) message: String,
    /// What else a JSON line holds, as JSON.
    pub(super) fields: Option<String>,
}

impl LogLine {
    /// Reads a line without its end.
    pub(super) fn read(line: &[u8]) -> LogLine {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let text = without_colours(&text);
        json(&text).unwrap_or_else(|| LogLine {
            level: key_value(&text).or_else(|| labelled(&text)),
            message: printable(&text),
            fields: None,
        })
    }
}

/// An object with a level: what slog, zap, zerolog, pino, winston, structlog, tracing and others write. Anything else is text.
fn json(text: &str) -> Option<LogLine> {
    let text = text.trim();
    if !(text.starts_with('{') && text.ends_with('}')) {
        return None;
    }
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let (name, level) = LEVEL.iter().find_map(|name| Some((*name, json_level(members.get(*name)?.get())?)))?;
    members.remove(name);
    // Rust's tracing puts the message one deeper.
    if let Some(inner) = members.get("fields").and_then(|fields| serde_json::from_str(fields.get()).ok()) {
        let inner: BTreeMap<String, &RawValue> = inner;
        members.remove("fields");
        inner.into_iter().for_each(|(name, value)| {
            members.entry(name).or_insert(value);
        });
    }
    let Some(message) = MESSAGE.iter().find_map(|name| members.remove(*name)) else {
        return Some(LogLine { level: Some(level), message: printable(text), fields: None });
    };
    let message = serde_json::from_str(message.get()).unwrap_or_else(|_| message.get().to_owned());
    let fields = serde_json::to_string(&members).ok().filter(|_| !members.is_empty());
    Some(LogLine { level: Some(level), message: printable(&message), fields: fields.as_deref().map(printable) })
}

/// A word, or a number as pino and bunyan write it.
fn json_level(value: &str) -> Option<Level> {
    if let Ok(number) = value.parse::<u32>() {
        return match number {
            10 => Some(Level::TRACE),
            20 => Some(Level::DEBUG),
            30 => Some(Level::INFO),
            40 => Some(Level::WARN),
            50 | 60 => Some(Level::ERROR),
            _ => None,
        };
    }
    level(value.strip_prefix('"')?.strip_suffix('"')?)
}

/// Of a line that begins with `key=value` pairs: logfmt.
fn key_value(text: &str) -> Option<Level> {
    let mut rest = text.trim_start();
    loop {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte)) {
            return None;
        }
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_at(end_of_quoted(quoted)?),
            None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
        };
        if LEVEL.contains(&key) {
            return level(value);
        }
        rest = next.strip_prefix('"').unwrap_or(next).trim_start();
    }
}

fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Of a line that begins with its level, by itself or after a time: `WARN: ..`, `[error] ..`, `2026-01-31T12:00:00Z INFO ..`,
/// `12:00:00,123 - name - ERROR - ..`. A word that may as well begin a sentence is none: `Error handling is done`.
fn labelled(text: &str) -> Option<Level> {
    let mut words = words(text).take(WORDS).peekable();
    let mut named = false;
    while let Some(word) = words.next() {
        let next = words.peek();
        if let Some(level) = glog(word.text).filter(|_| next.is_some_and(|next| is_time(next.text))) {
            return Some(level);
        }
        if is_time(word.text) || word.text == "-" {
            continue;
        }
        let (label, ends) = match word.text.split_once(':') {
            Some((label, _)) => (label, true),
            None => (word.text, word.enclosed || next.is_some_and(|next| next.text == "-") || word.before_bar),
        };
        let shouted = label.bytes().all(|byte| !byte.is_ascii_lowercase());
        match level(label) {
            Some(level) if ends || shouted => return Some(level),
            // The name of a logger, between dashes.
            None if !named && next.is_some_and(|next| next.text == "-") => named = true,
            _ => return None,
        }
    }
    None
}

/// A word of the beginning of a line, without the brackets around it.
struct Word<'a> {
    text: &'a str,
    /// In brackets of its own.
    enclosed: bool,
    before_bar: bool,
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let stops = |c: char| c.is_whitespace() || "[](){}<>|".contains(c);
    let mut rest = text;
    std::iter::from_fn(move || {
        let begin = rest.find(|c: char| !stops(c))?;
        let (before, from) = rest.split_at(begin);
        let (text, after) = from.split_at(from.find(stops).unwrap_or(from.len()));
        rest = after;
        Some(Word {
            text,
            enclosed: before.ends_with(['[', '(', '<', '{']) && after.starts_with([']', ')', '>', '}']),
            before_bar: after.trim_start().starts_with('|'),
        })
    })
}

/// A date, a time, a zone, a number.
fn is_time(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    has_digit && word.bytes().all(|byte| byte.is_ascii_digit() || b"-:./,+TZ".contains(&byte))
}

/// The first word of a line of glog, klog or absl: `E0131`, `E20260131`.
fn glog(word: &str) -> Option<Level> {
    let (letter, date) = word.split_at_checked(1)?;
    let level = match letter {
        "I" => Level::INFO,
        "W" => Level::WARN,
        "E" | "F" => Level::ERROR,
        _ => return None,
    };
    (matches!(date.len(), 4 | 8) && date.bytes().all(|byte| byte.is_ascii_digit())).then_some(level)
}

/// The level that a word means, in any case. Go's slog adds a distance: `INFO+2`.
fn level(word: &str) -> Option<Level> {
    let distant =
        word.split_once(['+', '-']).filter(|(_, distance)| distance.bytes().all(|byte| byte.is_ascii_digit()));
    let word = distant.map_or(word, |(word, _)| word);
    let words: [(&[&str], Level); 5] = [
        (&["trace"], Level::TRACE),
        (&["debug", "dbg"], Level::DEBUG),
        (&["info", "information", "notice", "inf"], Level::INFO),
        (&["warn", "warning", "wrn"], Level::WARN),
        (
            &["error", "err", "fatal", "critical", "crit", "panic", "dpanic", "alert", "emerg", "emergency"],
            Level::ERROR,
        ),
    ];
    let means = |words: &[&str]| words.iter().any(|one| one.eq_ignore_ascii_case(word));
    words.iter().find(|(words, _)| means(words)).map(|(_, level)| *level)
}

/// Rust's tracing writes colours wherever it writes to.
fn without_colours(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = "\x1b[";
    if !text.contains(BEGIN) {
        return Cow::Borrowed(text);
    }
    let mut pieces = text.split(BEGIN);
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').strip_prefix('m') {
            Some(rest) => kept.push_str(rest),
            None => kept.extend([BEGIN, piece]),
        }
    }
    Cow::Owned(kept)
}

/// The text without what could forge another line or drive a terminal.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level_of(line: &str) -> Option<Level> {
        LogLine::read(line.as_bytes()).level
    }

    #[test]
    fn the_level_is_found_where_loggers_write_it() {
        for (line, level) in [
            // Plain, and in brackets.
            ("WARN: the disk is full", Level::WARN),
            ("warning: the disk is full", Level::WARN),
            ("[error] gone", Level::ERROR),
            ("[12:00:00] [INFO] there", Level::INFO),
            ("<debug> x", Level::DEBUG),
            ("ERROR gone", Level::ERROR),
            ("panic: runtime error", Level::ERROR),
            ("20:18:26 TRACE src/main.c:11: there", Level::TRACE),
            // Rust: env_logger, tracing with and without colours.
            ("[2026-01-31T12:00:00Z WARN  plugin::batches] slow", Level::WARN),
            ("2026-01-31T12:00:00.000001Z DEBUG plugin: there", Level::DEBUG),
            (
                "\x1b[2m2026-01-31T12:00:00.000001Z\x1b[0m \x1b[31mERROR\x1b[0m \x1b[2mplugin\x1b[0m\x1b[2m:\x1b[0m gone",
                Level::ERROR,
            ),
            // Python: the default of logging, the usual format, loguru.
            ("WARNING:root:slow", Level::WARN),
            ("2026-01-31 12:00:00,123 - plugin.batches - CRITICAL - gone", Level::ERROR),
            ("2026-01-31 12:00:00.123 | INFO     | plugin:handle:7 - there", Level::INFO),
            // Go: log/slog, logrus, glog.
            ("2026/01/31 12:00:00 INFO there count=3", Level::INFO),
            ("time=2026-01-31T12:00:00.000Z level=WARN+1 msg=\"a \\\"b\\\" level=info\"", Level::WARN),
            ("time=\"2026-01-31 12:00:00\" level=fatal msg=gone", Level::ERROR),
            ("level=warn slow", Level::WARN),
            ("E0131 12:00:00.000000       1 main.go:7] gone", Level::ERROR),
            // JavaScript: winston, and consoles that name the level.
            ("error: gone", Level::ERROR),
            ("Debug: there", Level::DEBUG),
        ] {
            assert_eq!(level_of(line), Some(level), "{line}");
        }
    }

    #[test]
    fn a_word_of_a_sentence_is_no_level() {
        for line in [
            "",
            "Error handling is done",
            "info about 3 records",
            "warnings: 0",
            "deleted 3 records, error: none",
            "12 records - all gone",
            "a - b - c - ERROR - d",
            "step=3 attempt=1 op=again",
            "user=7 said level=error",
            "said level=error",
            "E0131 is a part number",
            "{\"level\": \"loud\", \"message\": \"m\"}",
            "{\"message\": \"ERROR\"}",
            "{\"level\": \"info\"",
            "[1, 2]",
        ] {
            assert_eq!(level_of(line), None, "{line}");
        }
    }

    #[test]
    fn a_json_line_becomes_its_message_and_the_rest_of_it() {
        for (line, level, message, fields) in [
            (r#"{"level":"warn","message":"slow"}"#, Level::WARN, "slow", None),
            (
                r#" {"time":"t","level":"ERROR","msg":"gone","id":12345678901234567890}"#,
                Level::ERROR,
                "gone",
                Some(r#"{"id":12345678901234567890,"time":"t"}"#),
            ),
            (r#"{"level":30,"time":1,"msg":"there"}"#, Level::INFO, "there", Some(r#"{"time":1}"#)),
            (r#"{"event":"there","level":"debug"}"#, Level::DEBUG, "there", None),
            (r#"{"levelname":"WARNING","message":"slow"}"#, Level::WARN, "slow", None),
            (r#"{"severity":"INFO","message":{"a":1}}"#, Level::INFO, r#"{"a":1}"#, None),
            (
                r#"{"timestamp":"t","level":"INFO","fields":{"message":"there","n":1},"target":"p"}"#,
                Level::INFO,
                "there",
                Some(r#"{"n":1,"target":"p","timestamp":"t"}"#),
            ),
            (r#"{"level":"info","count":1}"#, Level::INFO, r#"{"level":"info","count":1}"#, None),
        ] {
            let wanted = LogLine { level: Some(level), message: message.to_owned(), fields: fields.map(str::to_owned) };
            assert_eq!(LogLine::read(line.as_bytes()), wanted, "{line}");
        }
    }

    #[test]
    fn nothing_in_json_forges_a_line_or_drives_a_terminal() {
        let line = r#"{"level":"info","msg":"a\nb\u001b[2J","x":"CSI"}"#.replace("CSI", "\u{9b}");
        let line = LogLine::read(line.as_bytes());
        assert_eq!((line.message.as_str(), line.fields.as_deref()), ("a\\nb\\u{1b}[2J", Some(r#"{"x":"\u{9b}"}"#)));
    }

    #[test]
    fn colours_are_left_out_and_what_else_drives_a_terminal_is_shown() {
        assert_eq!(LogLine::read(b"\x1b[1;31mred\x1b[0m \x1b[2J\x1b").message, "red \\u{1b}[2J\\u{1b}");
    }

    #[test]
    fn any_bytes_are_a_line() {
        for line in [&b"\xff\xfe"[..], b"\x1b[", b"[", b"=", b"\"", b"level=\"", b"{}", b"\r"] {
            LogLine::read(line);
        }
        let deep = format!("{{\"level\":\"info\",\"msg\":{}", "[".repeat(8000));
        LogLine::read(deep.as_bytes());
    }
}
