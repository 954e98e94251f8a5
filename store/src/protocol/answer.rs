//! What is answered.

use super::VERSION;
use serde_json::Value;

/// What is answered: a status, and the data as JSON text.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub data: String,
}

impl Reply {
    pub fn ok(data: String) -> Self {
        Reply { status: 200, data }
    }

    pub fn empty() -> Self {
        Reply::ok("{}".to_owned())
    }

    pub fn error(status: u16, message: impl Into<String>) -> Self {
        Reply { status, data: Value::String(message.into()).to_string() }
    }

    pub fn closed() -> Self {
        Reply::error(503, "the store is closed")
    }

    pub fn into_text(self, kind: &str, corr_id: &str) -> String {
        let (kind, corr_id) = (Value::from(kind), Value::from(corr_id));
        let Reply { status, data } = self;
        format!(
            r#"{{"kind":{kind},"head":{{"corrId":{corr_id},"status":{status},"version":"{VERSION}"}},"data":{data}}}"#
        )
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
