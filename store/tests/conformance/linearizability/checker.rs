//! Whether answers to concurrent requests could have come from the model asked one by one: the search of Wing, Gong and Lowe.
//!
//! It walks from state to state: next may come any call that was made before every other open one was answered, if the model
//! gives the answer that was given. A state, which is how far each client is and the model, is visited once. Crates that test
//! for linearizability keep no such memory, and show a failed history whole.

use crate::operation::{Answer, Operation};
use crate::reference::Model;
use std::collections::HashSet;
use std::fmt;

/// One request of one client, which makes one after the other.
#[derive(Debug, Clone)]
pub struct Call {
    pub client: usize,
    /// The place in the order of all invocations and answers.
    pub invoked: u64,
    /// `None`: not known. It may have taken effect or not.
    pub answered: Option<(u64, Answer)>,
    /// The virtual time.
    pub now: i64,
    pub operation: Operation,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { client, invoked, answered, now, operation } = self;
        match answered {
            Some((at, Answer { status, data })) => {
                write!(f, "client {client}, {invoked} to {at}: {now} {operation}\n    -> {status} {data}")
            }
            None => write!(f, "client {client}, {invoked} on: {now} {operation}\n    not answered"),
        }
    }
}

impl Call {
    /// Whether the history says the same of all others without it: it has changed nothing.
    fn has_no_effect(&self) -> bool {
        let reads = match &self.operation {
            Operation::PromiseGet { .. } | Operation::TaskGet { .. } | Operation::Search(_) => true,
            Operation::TaskHeartbeat { tasks, .. } => tasks.is_empty(),
            _ => false,
        };
        reads || self.answered.as_ref().is_some_and(|(_, answer)| answer.status >= 400)
    }

    /// What was known of it at a moment.
    fn until(&self, moment: u64) -> Option<Call> {
        let answered = self.answered.clone().filter(|(at, _)| *at <= moment);
        (self.invoked < moment).then(|| Call { answered, ..self.clone() })
    }
}

/// Whether some order of the calls explains all answers.
pub fn is_linearizable(calls: &[Call]) -> bool {
    let clients = calls.iter().map(|call| call.client + 1).max().unwrap_or(0);
    let mut lanes: Vec<Vec<&Call>> = vec![Vec::new(); clients];
    for call in calls {
        lanes[call.client].push(call);
    }
    for lane in &mut lanes {
        lane.sort_by_key(|call| call.invoked);
    }
    let begin = (vec![0usize; clients], Model::default());
    let mut seen = HashSet::from([begin.clone()]);
    let mut open = vec![begin];
    while let Some((done, model)) = open.pop() {
        let mut next: Vec<&Call> =
            lanes.iter().zip(&done).filter_map(|(lane, done)| lane.get(*done).copied()).collect();
        let Some(first_answer) = next.iter().filter_map(|call| Some(call.answered.as_ref()?.0)).min() else {
            return true;
        };
        next.retain(|call| call.invoked < first_answer);
        // The one that was answered first is tried first, so it is pushed last.
        next.sort_by_key(|call| std::cmp::Reverse(call.answered.as_ref().map_or(u64::MAX, |(at, _)| *at)));
        for call in next {
            let mut after = model.clone();
            let expected = after.apply(&call.operation, call.now);
            if call.answered.as_ref().is_some_and(|(_, answer)| *answer != expected) {
                continue;
            }
            let mut done = done.clone();
            done[call.client] += 1;
            let state = (done, after);
            if seen.insert(state.clone()) {
                open.push(state);
            }
        }
    }
    false
}

/// The smallest part of a history that no order explains: as far as it is known at the first moment at which none does, without
/// what changed nothing as long as none does. `None` when the history is linearizable.
pub fn violation(calls: &[Call]) -> Option<Vec<Call>> {
    if is_linearizable(calls) {
        return None;
    }
    let until = |moment: u64| -> Vec<Call> { calls.iter().filter_map(|call| call.until(moment)).collect() };
    let mut moments: Vec<u64> = calls.iter().filter_map(|call| Some(call.answered.as_ref()?.0)).collect();
    moments.sort_unstable();
    let first = moments.partition_point(|moment| is_linearizable(&until(*moment)));
    let mut smallest = until(moments[first]);
    for n in (0..smallest.len()).rev() {
        let call = &smallest[n];
        if call.has_no_effect() || call.answered.is_none() {
            let mut without = smallest.clone();
            without.remove(n);
            if !is_linearizable(&without) {
                smallest = without;
            }
        }
    }
    smallest.sort_by_key(|call| call.invoked);
    Some(smallest)
}
