//! What is answered. A promise is put into text by whoever asked, not by the writer, which everybody waits for.

use super::VERSION;
use crate::rows::Promise;
use serde_json::Value;
use std::fmt::Write;

/// What is answered: a status, and the data.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// JSON.
    Text(String),
    Promise(Box<Promise>),
    /// The answer to an operation inside another.
    Fenced {
        kind: &'static str,
        inner: Box<Reply>,
    },
}

impl Reply {
    /// `data` is JSON.
    pub fn new(status: u16, data: String) -> Self {
        Reply { status, data: Data::Text(data) }
    }

    pub fn ok(data: String) -> Self {
        Reply::new(200, data)
    }

    pub fn empty() -> Self {
        Reply::ok("{}".to_owned())
    }

    pub fn promise(promise: Promise) -> Self {
        Reply { status: 200, data: Data::Promise(Box::new(promise)) }
    }

    /// The answer to a fence whose lease holds, around that to the operation inside.
    pub fn fenced(kind: &'static str, inner: Reply) -> Self {
        Reply { status: 200, data: Data::Fenced { kind, inner: Box::new(inner) } }
    }

    pub fn error(status: u16, message: impl Into<String>) -> Self {
        Reply::new(status, Value::String(message.into()).to_string())
    }

    pub fn closed() -> Self {
        Reply::error(503, "the store is closed")
    }

    /// The data as JSON.
    pub fn into_data(self) -> String {
        let mut text = String::new();
        self.write_data(&mut text);
        text
    }

    pub fn into_text(self, kind: &str, corr_id: &str) -> String {
        let mut text = String::with_capacity(self.data.length() + kind.len() + corr_id.len() + 128);
        text.push_str(r#"{"kind":"#);
        push_text(&mut text, kind);
        text.push_str(r#","head":{"corrId":"#);
        push_text(&mut text, corr_id);
        // Writing to a String can't fail.
        let _ = write!(text, r#","status":{},"version":"{VERSION}"}},"data":"#, self.status);
        self.write_data(&mut text);
        text.push('}');
        text
    }

    fn write_data(&self, text: &mut String) {
        match &self.data {
            Data::Text(data) => text.push_str(data),
            Data::Promise(promise) => {
                text.push_str(r#"{"promise":"#);
                promise.write_record(text);
                text.push('}');
            }
            Data::Fenced { kind, inner } => {
                let _ = write!(text, r#"{{"action":{{"kind":"{kind}","head":{{"status":{}}},"data":"#, inner.status);
                inner.write_data(text);
                text.push_str(r#"},"preload":[]}"#);
            }
        }
    }
}

impl Data {
    /// About how many bytes it takes.
    fn length(&self) -> usize {
        match self {
            Data::Text(data) => data.len(),
            Data::Promise(promise) => promise.record_length(),
            Data::Fenced { inner, .. } => inner.data.length() + 96,
        }
    }
}

/// Appends a text as JSON.
pub fn push_text(json: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let _ = write!(json, "{}", Value::from(text));
    } else {
        json.push('"');
        json.push_str(text);
        json.push('"');
    }
}

/// The answer to a request that does not fit.
#[derive(Debug)]
pub struct Refusal {
    pub kind: String,
    pub corr_id: String,
    pub reply: Reply,
}

impl Refusal {
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    pub fn into_text(self) -> String {
        self.reply.into_text(&self.kind, &self.corr_id)
    }
}
