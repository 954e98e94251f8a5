//! The ceiling that the SDK sets: a network that answers from hash maps in memory, just what the SDK needs, and keeps nothing safe.
//!
//! On demand it answers whole records, as the protocol wants it: the SDK takes most of its time to read those.

use async_trait::async_trait;
use resonate::error::Result;
use resonate::network::Network;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

type Callback = Box<dyn Fn(String) + Send + Sync>;

/// Everything that is known: roots and steps by id.
#[derive(Default)]
struct Promises {
    /// The version of the task, and the parameter.
    roots: HashMap<String, (i64, String)>,
    /// What the record has besides the state and the value; nothing if whole records are not asked for.
    steps: HashMap<String, String>,
}

#[derive(Default)]
pub struct Ceiling {
    whole_records: bool,
    promises: Mutex<Promises>,
    callback: OnceLock<Callback>,
}

#[derive(Deserialize)]
struct Request<'a> {
    kind: &'a str,
    #[serde(borrow)]
    head: Head<'a>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "corrId")]
    corr_id: &'a str,
}

/// The members of all requests that are answered.
#[derive(Deserialize)]
struct Data<'a> {
    id: Option<&'a str>,
    #[serde(borrow)]
    param: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<Action<'a>>,
}

#[derive(Deserialize)]
struct Action<'a> {
    kind: &'a str,
    #[serde(borrow)]
    data: Fenced<'a>,
}

#[derive(Deserialize)]
struct Fenced<'a> {
    id: &'a str,
    #[serde(borrow)]
    param: Option<&'a RawValue>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

impl Ceiling {
    /// Answers the records of steps whole.
    pub fn with_whole_records() -> Self {
        Ceiling { whole_records: true, ..Ceiling::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Promises) -> T) -> T {
        change(&mut self.promises.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The data of the answer, empty for what nobody needs.
    fn answer(&self, request: &Request<'_>) -> String {
        let id = request.data.id.unwrap_or_default();
        match (request.kind, &request.data.action) {
            ("promise.create", _) => {
                let param = request.data.param.map_or("{}", RawValue::get).to_owned();
                self.with(|promises| promises.roots.insert(id.to_owned(), (0, param)));
                if let Some(callback) = self.callback.get() {
                    callback(format!(
                        r#"{{"kind":"execute","head":{{}},"data":{{"task":{{"id":"{id}","version":0}}}}}}"#
                    ));
                }
                format!(r#"{{"promise":{{"id":"{id}","state":"pending","timeoutAt":9223372036854775807}}}}"#)
            }
            ("task.acquire", _) => self.with(|promises| {
                let Some((version, param)) = promises.roots.get_mut(id) else { return "{}".to_owned() };
                *version += 1;
                format!(
                    r#"{{"task":{{"id":"{id}","state":"acquired","version":{version}}},"promise":{{"id":"{id}","state":"pending","param":{param},"timeoutAt":9223372036854775807}},"preload":[]}}"#
                )
            }),
            ("task.fence", Some(Action { kind, data: Fenced { id, param, tags, value } })) => {
                let text = |value: &Option<&'_ RawValue>| value.map_or("{}", RawValue::get).to_owned();
                let state = if value.is_some() { "resolved" } else { "pending" };
                let rest = self.with(|promises| match promises.steps.get(*id) {
                    Some(rest) => rest.clone(),
                    None => {
                        let rest = if self.whole_records {
                            let (param, tags) = (text(param), text(tags));
                            format!(r#","param":{param},"tags":{tags},"createdAt":1790000000000"#)
                        } else {
                            String::new()
                        };
                        promises.steps.insert((*id).to_owned(), rest.clone());
                        rest
                    }
                });
                let value = value.map_or("{}", RawValue::get);
                format!(
                    r#"{{"action":{{"kind":"{kind}","data":{{"promise":{{"id":"{id}","state":"{state}","value":{value},"timeoutAt":9223372036854775807{rest}}}}}}}}}"#
                )
            }
            ("task.fulfill", _) => {
                self.with(|promises| promises.roots.remove(id));
                format!(r#"{{"promise":{{"id":"{id}","state":"resolved","timeoutAt":9223372036854775807}}}}"#)
            }
            _ => "{}".to_owned(),
        }
    }
}

#[async_trait]
impl Network for Ceiling {
    fn pid(&self) -> &str {
        "ceiling"
    }

    fn group(&self) -> &str {
        "bench"
    }

    fn unicast(&self) -> &str {
        "poll://uni@bench/ceiling"
    }

    fn anycast(&self) -> &str {
        "poll://any@bench/ceiling"
    }

    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        Ok(())
    }

    async fn send(&self, request: String) -> Result<String> {
        let request: Request<'_> = serde_json::from_str(&request)?;
        let data = self.answer(&request);
        let (kind, corr_id) = (request.kind, request.head.corr_id);
        Ok(format!(r#"{{"kind":"{kind}","head":{{"corrId":"{corr_id}","status":200}},"data":{data}}}"#))
    }

    fn recv(&self, callback: Callback) {
        // There is one worker.
        let _ = self.callback.set(callback);
    }

    fn target_resolver(&self, target: &str) -> String {
        format!("poll://any@{target}")
    }
}
