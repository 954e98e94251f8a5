//! How long a call takes, and the least `limits.memory` with which it works.

use crate::language::{call, limits, message, progress};
use crate::protocol::instruct;
use pawl::config::Limits;
use pawl::plugin::Version;
use pawl::plugin::contract::{Bytes, Message};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Figures of one language.
pub struct Measured {
    pub small: Duration,
    pub large: Duration,
    pub memory_small: usize,
    pub memory_large: usize,
    pub size: usize,
    pub compiled_in: Option<Duration>,
}

pub async fn measure(version: &Arc<Version>) -> Measured {
    let small = echo(vec![b'x'; 100]);
    let large = echo(vec![b'x'; 1 << 20]);
    Measured {
        small: median(version, &small).await,
        large: median(version, &large).await,
        memory_small: least_memory(version, &small).await,
        memory_large: least_memory(version, &large).await,
        size: version.size(),
        compiled_in: version.compiled_in(),
    }
}

fn echo(value: Vec<u8>) -> Message {
    instruct(Message { value: Some(Bytes(value)), ..message("") }, &json!({ "op": "echo" }))
}

async fn median(version: &Arc<Version>, message: &Message) -> Duration {
    let mut times = Vec::new();
    for _ in 0..15 {
        times.push(call(version, message, progress(), &limits()).await.ran);
    }
    times.sort();
    times[times.len() / 2]
}

/// To a quarter of a MiB.
async fn least_memory(version: &Arc<Version>, message: &Message) -> usize {
    let (mut too_little, mut enough) = (0, 256 << 20);
    while enough - too_little > 256 << 10 {
        let memory = (too_little + enough) / 2;
        let limits = Limits { memory, ..limits() };
        match call(version, message, progress(), &limits).await.result {
            Ok(_) => enough = memory,
            Err(_) => too_little = memory,
        }
    }
    enough
}
