//! Judges a history: what was lost, done again, said twice, or done out of order.

use super::history::{Call, Expectation, History, Interruption, Micros, OutputTopic, Source, step_of};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// How exactly topics tell the time.
const MILLISECOND: Micros = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A message with neither a completion nor a dead letter.
    Lost,
    /// A call of a step after what shows that it had been checkpointed.
    Redone,
    /// An event or a dead letter that is in its topic more than once.
    Duplicated,
    /// A call of a record while the one before of its key had not ended.
    Order,
    /// An event that the script of an ended message says and that is not there.
    EventLost,
    /// A step of an ended message that was never called.
    StepMissing,
    /// A record or an end that no script says.
    Unexpected,
}

/// Something that must not happen.
#[derive(Debug, Clone)]
pub struct Violation {
    pub kind: Kind,
    pub workflow: String,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.kind, self.workflow, self.what)
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    pub messages: usize,
    pub completed: usize,
    pub dead: usize,
    pub calls: usize,
    /// Calls by workers that could not know yet that others had gone on.
    pub late: usize,
    pub violations: Vec<Violation>,
}

impl Verdict {
    pub fn count(&self, kind: Kind) -> usize {
        self.violations.iter().filter(|violation| violation.kind == kind).count()
    }

    /// Messages that the harness produced and that are not in a source topic: then the run itself was faulty.
    pub fn add_unknown<'a>(&mut self, produced: impl Iterator<Item = &'a String>, history: &History) {
        let read = history.sources.iter().filter_map(|source| Expectation::of(&source.route, &source.value));
        let read: HashSet<String> = read.map(|expectation| expectation.workflow).collect();
        for workflow in produced.filter(|workflow| !read.contains(*workflow)) {
            self.add(Kind::Lost, workflow, "it was produced, and is in no source topic".to_owned());
        }
    }

    fn add(&mut self, kind: Kind, workflow: &str, what: String) {
        self.violations.push(Violation { kind, workflow: workflow.to_owned(), what });
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { messages, completed, dead, calls, late, .. } = self;
        let count = |kind| self.count(kind);
        write!(
            f,
            "messages={messages} completed={completed} dead={dead} lost={} steps-redone-after-checkpoint={} \
             events-duplicated={} order-violations={} events-lost={} steps-missing={} unexpected={} late={late} calls={calls}",
            count(Kind::Lost),
            count(Kind::Redone),
            count(Kind::Duplicated),
            count(Kind::Order),
            count(Kind::EventLost),
            count(Kind::StepMissing),
            count(Kind::Unexpected),
        )
    }
}

/// Judges everything. `ordered` are the routes whose records of one key are processed in order.
pub fn check(history: &History, ordered: &[&str]) -> Verdict {
    let mut verdict = Verdict { calls: history.calls.len(), ..Verdict::default() };
    let mut expected: BTreeMap<String, Expectation> = BTreeMap::new();
    for source in &history.sources {
        match Expectation::of(&source.route, &source.value) {
            // The same id again is the same message.
            Some(expectation) => drop(expected.entry(expectation.workflow.clone()).or_insert(expectation)),
            None => verdict.add(Kind::Unexpected, &source.route, format!("no script: {}", source.value)),
        }
    }
    verdict.messages = expected.len();
    let outputs = outputs(history, &expected, &mut verdict);
    let effective = redone(history, &outputs, &mut verdict);
    let called: HashSet<(&str, u64)> = history.calls.iter().map(|call| (call.workflow.as_str(), call.step)).collect();
    for call in &history.calls {
        if expected.get(&call.workflow).is_none_or(|expectation| call.step > expectation.last) {
            verdict.add(Kind::Unexpected, &call.workflow, format!("{} was called", step(call)));
        }
    }
    for expectation in expected.values() {
        ended(expectation, &outputs, &called, &mut verdict);
    }
    order(history, ordered, &expected, &outputs, &effective, &mut verdict);
    verdict
}

/// The moments at which records were produced.
#[derive(Default)]
struct Outputs {
    /// By the names of events.
    events: HashMap<String, Micros>,
    /// By workflows.
    letters: HashMap<String, (Micros, String)>,
}

impl Outputs {
    /// When a workflow's end was produced.
    fn end(&self, expectation: &Expectation) -> Option<Micros> {
        let completion = || self.events.get(&expectation.completion()).copied();
        let letter = || self.letters.get(&expectation.workflow).map(|(produced, _)| *produced);
        if expectation.dies { letter() } else { completion().or_else(letter) }
    }
}

fn outputs(history: &History, expected: &BTreeMap<String, Expectation>, verdict: &mut Verdict) -> Outputs {
    let said: HashSet<&str> =
        expected.values().flat_map(|expectation| &expectation.events).map(String::as_str).collect();
    let mut outputs = Outputs::default();
    for output in &history.outputs {
        let name = output.name.as_str();
        let (workflow, again) = match output.topic {
            OutputTopic::Dead => {
                if !expected.contains_key(name) {
                    verdict.add(Kind::Unexpected, name, format!("a dead letter of no message: {}", output.reason));
                }
                let letter = (output.produced, output.reason.clone());
                (name, outputs.letters.insert(name.to_owned(), letter).is_some())
            }
            OutputTopic::Done | OutputTopic::Middle => {
                if !said.contains(name) {
                    verdict.add(Kind::Unexpected, name, "an event that no script says".to_owned());
                }
                let workflow = step_of(name).map_or(name, |(workflow, _)| workflow);
                (workflow, outputs.events.insert(name.to_owned(), output.produced).is_some())
            }
        };
        if again {
            verdict.add(Kind::Duplicated, workflow, format!("`{name}` is there again in {:?}", output.topic));
        }
    }
    outputs
}

/// What is known to be checkpointed of a workflow at some moment, from what came before.
#[derive(Default)]
struct Reached {
    /// Calls that come before this step and attempt come after their checkpoint.
    position: (u64, u64),
    /// What showed it.
    by: String,
}

/// Finds the calls that came after their checkpoint; answers the others.
fn redone<'a>(history: &'a History, outputs: &Outputs, verdict: &mut Verdict) -> Vec<&'a Call> {
    // An event is produced after the checkpoint of its step.
    let mut shown: Vec<(Micros, &str, (u64, u64), &str)> = Vec::new();
    for (name, produced) in &outputs.events {
        if let Some((workflow, step)) = step_of(name) {
            shown.push((*produced, workflow, (step + 1, 0), name));
        }
    }
    for (workflow, (produced, _)) in &outputs.letters {
        shown.push((*produced, workflow, (u64::MAX, 0), "the dead letter"));
    }
    shown.sort_unstable();
    let mut shown = shown.into_iter().peekable();
    let mut reached: HashMap<&str, Reached> = HashMap::new();
    let mut excused: HashSet<(&str, usize)> = HashSet::new();
    let mut effective = Vec::with_capacity(history.calls.len());
    for call in &history.calls {
        while let Some((_, workflow, position, by)) = shown.next_if(|(produced, ..)| *produced + MILLISECOND < call.at)
        {
            let reached = reached.entry(workflow).or_default();
            if position > reached.position {
                *reached = Reached { position, by: format!("`{by}`") };
            }
        }
        let reached = reached.entry(&call.workflow).or_default();
        let position = (call.step, call.attempt);
        if position >= reached.position {
            *reached = Reached { position, by: step(call) };
            effective.push(call);
            continue;
        }
        // Not of the process that went on: at most the one run that it had begun before.
        if interruptions(history, call).any(|n| excused.insert((call.workflow.as_str(), n))) {
            verdict.late += 1;
        } else {
            verdict.add(Kind::Redone, &call.workflow, format!("{} after {}", step(call), reached.by));
        }
    }
    effective
}

/// The numbers of the interruptions that a call may owe its lateness to.
fn interruptions<'a>(history: &'a History, call: &'a Call) -> impl Iterator<Item = usize> + 'a {
    let covers = |i: &Interruption| i.worker == call.worker && (i.from..=i.until).contains(&call.at);
    history.interruptions.iter().enumerate().filter(move |(_, i)| covers(i)).map(|(n, _)| n)
}

fn step(call: &Call) -> String {
    let Call { at, worker, step, attempt, .. } = call;
    format!("step {step} attempt {attempt} by worker {worker} at {at}")
}

fn ended(expectation: &Expectation, outputs: &Outputs, called: &HashSet<(&str, u64)>, verdict: &mut Verdict) {
    let workflow = expectation.workflow.as_str();
    let letter = outputs.letters.get(workflow);
    let completed = outputs.events.contains_key(&expectation.completion()) && !expectation.dies;
    verdict.completed += usize::from(completed);
    verdict.dead += usize::from(letter.is_some());
    match letter {
        Some((_, reason)) if !expectation.dies => {
            verdict.add(Kind::Unexpected, workflow, format!("it is a dead letter: {reason}"));
            return;
        }
        None if !completed => {
            verdict.add(Kind::Lost, workflow, "neither a completion nor a dead letter".to_owned());
            return;
        }
        _ => {}
    }
    for event in &expectation.events {
        if !outputs.events.contains_key(event) {
            verdict.add(Kind::EventLost, workflow, format!("`{event}` is not there"));
        }
    }
    for step in (0..=expectation.last).filter(|step| !called.contains(&(workflow, *step))) {
        verdict.add(Kind::StepMissing, workflow, format!("step {step} was never called"));
    }
}

/// Records of one key and partition, in the order of their offsets: the next begins when the one before has ended.
fn order(
    history: &History,
    ordered: &[&str],
    expected: &BTreeMap<String, Expectation>,
    outputs: &Outputs,
    effective: &[&Call],
    verdict: &mut Verdict,
) {
    let mut span: HashMap<&str, (&Call, &Call)> = HashMap::new();
    for call in effective {
        span.entry(&call.workflow).and_modify(|(_, last)| *last = call).or_insert((call, call));
    }
    // By route, partition and key.
    let mut queues: BTreeMap<_, Vec<&Expectation>> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut sources: Vec<&Source> = history.sources.iter().filter(|s| ordered.contains(&s.route.as_str())).collect();
    sources.sort_by_key(|source| (&source.route, source.partition, source.offset));
    for source in sources {
        let Some(key) = &source.key else { continue };
        let Some(expectation) = Expectation::of(&source.route, &source.value) else { continue };
        let Some(expectation) = expected.get(&expectation.workflow) else { continue };
        if seen.insert(expectation.workflow.as_str()) {
            queues.entry((&source.route, source.partition, key)).or_default().push(expectation);
        }
    }
    for ((_, _, key), queue) in queues {
        for pair in queue.windows(2) {
            let [before, after] = pair else { continue };
            let Some((first, _)) = span.get(after.workflow.as_str()) else { continue };
            let other = &before.workflow;
            match span.get(other.as_str()) {
                Some((_, last)) if last.at >= first.at => {
                    let what =
                        format!("{} before {} of {other}, which comes first of key {key}", step(first), step(last));
                    verdict.add(Kind::Order, &after.workflow, what);
                }
                _ if outputs.end(before).is_some_and(|end| end > first.at) => {
                    let what = format!("{} before the end of {other}, which comes first of key {key}", step(first));
                    verdict.add(Kind::Order, &after.workflow, what);
                }
                _ => {}
            }
        }
    }
}
