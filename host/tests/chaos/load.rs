//! What the workers are given to do: messages whose scripts follow from a seed, produced as fast as they are done.

use super::history::{Script, workflow_id};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// The event of a wait that the resolver is to settle carries this value.
pub const SETTLE: &str = "settle";

/// A message to produce.
pub struct Message {
    pub route: Route,
    pub workflow: String,
    pub key: Option<String>,
    pub value: String,
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Records are independent of each other.
    Free,
    /// Records of one key are processed in order.
    Keyed,
}

impl Route {
    pub const ALL: [Route; 2] = [Route::Free, Route::Keyed];

    /// The route's name, and its topic's.
    pub fn name(self) -> &'static str {
        match self {
            Route::Free => "free",
            Route::Keyed => "keyed",
        }
    }

    /// How many of its messages are unfinished at a time.
    pub fn at_once(self) -> usize {
        match self {
            Route::Free => 110,
            Route::Keyed => 40,
        }
    }
}

const KEYS: u32 = 24;

/// The messages of one seed, without end.
pub struct Load {
    random: StdRng,
    produced: u64,
    /// The last message without a key, which may come a second time.
    last: Option<(String, String)>,
}

impl Load {
    pub fn new(seed: u64) -> Load {
        Load { random: StdRng::seed_from_u64(seed ^ 0x10ad), produced: 0, last: None }
    }

    /// The next message of a route. `middle` is the topic of the events that scripts emit before their end.
    pub fn next(&mut self, route: Route, middle: &str) -> Message {
        if route == Route::Free
            && self.random.random_bool(0.03)
            && let Some((id, value)) = self.last.take()
        {
            return Message { route, workflow: workflow_id(route.name(), &id), key: None, value };
        }
        let id = format!("m{:06}", self.produced);
        self.produced += 1;
        let ops = self.ops(route, middle);
        let value = serde_json::to_string(&Script { id: id.clone(), script: ops }).unwrap();
        let workflow = workflow_id(route.name(), &id);
        let key = match route {
            Route::Free => {
                self.last = Some((id, value.clone()));
                None
            }
            Route::Keyed => Some(format!("k{:02}", self.random.random_range(0..KEYS))),
        };
        Message { route, workflow, key, value }
    }

    /// Most are short, some are long enough for a chain of several roots.
    fn ops(&mut self, route: Route, middle: &str) -> Vec<Value> {
        let random = &mut self.random;
        let longest = match (route, random.random_range(0..100)) {
            (_, 0..75) => 10,
            (Route::Free, 94..) => 199,
            (Route::Free, _) => 50,
            (Route::Keyed, _) => 20,
        };
        let length = random.random_range(0..=longest);
        let mut ops: Vec<Value> = (0..length).map(|step| op(random, step, length, middle)).collect();
        match random.random_range(0..100) {
            0..6 => ops.push(json!({"op": "permanent", "reason": "the script says so"})),
            6..16 => {
                let events: Vec<Value> =
                    (0..random.random_range(1..=3)).map(|n| json!({"value": format!("end {n}")})).collect();
                ops.push(json!({"op": "done", "events": events}));
            }
            // The default completion.
            _ => {}
        }
        ops
    }
}

fn op(random: &mut StdRng, step: u64, length: u64, middle: &str) -> Value {
    // So that a long one is done within half a minute when nothing disturbs it.
    let rarely = if length > 50 { 0.1 } else { 1.0 };
    let delay = if random.random_bool(0.3 * rarely) { random.random_range(1..200) } else { 0 };
    let emitted = |text: &str| json!([{"topic": middle, "value": text}]);
    match random.random_range(0..100) {
        0..20 => {
            let count = random.random_range(1..=3);
            let events: Vec<Value> =
                (0..count).map(|n| json!({"topic": middle, "value": format!("step {step} event {n}")})).collect();
            json!({"op": "again", "delay_ms": delay, "events": events})
        }
        20..26 if random.random_bool(rarely) => json!({"op": "sleep", "ms": random.random_range(300..1000)}),
        26..32 if random.random_bool(rarely) => {
            json!({"op": "transient", "times": random.random_range(1..=3), "after_ms": random.random_range(5..200)})
        }
        32..36 if random.random_bool(rarely) => {
            json!({"op": "wait", "name": format!("approval-{step}"), "timeout_ms": null, "events": emitted(SETTLE)})
        }
        36..39 if random.random_bool(rarely) => {
            let timeout = random.random_range(100..2000);
            json!({"op": "wait", "name": format!("nobody-{step}"), "timeout_ms": timeout, "events": emitted("leave")})
        }
        _ => json!({"op": "again", "delay_ms": delay}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same() {
        let values = |seed| {
            let mut load = Load::new(seed);
            (0..200).map(|_| load.next(Route::Free, "middle").value).collect::<Vec<_>>()
        };
        assert_eq!(values(3), values(3));
        assert_ne!(values(3), values(4));
    }

    #[test]
    fn every_kind_of_step_and_every_length_comes() {
        let mut load = Load::new(1);
        let mut text = String::new();
        let (mut shortest, mut longest) = (usize::MAX, 0);
        for _ in 0..2000 {
            let message = load.next(Route::Free, "middle");
            let script: Script = serde_json::from_str(&message.value).unwrap();
            (shortest, longest) = (shortest.min(script.script.len()), longest.max(script.script.len()));
            text += &message.value;
        }
        assert_eq!((shortest, longest > 190), (0, true));
        for op in ["again", "sleep", "transient", "permanent", "wait", "done"] {
            assert!(text.contains(&format!(r#""op":"{op}""#)), "{op}");
        }
    }
}
