//! Random histories: what is asked is drawn against the state that the model is in, so that deep states are reached.
//!
//! A history is a list of steps that say "acquire the second task that is pending" or "go to just before the next
//! deadline". It shrinks well, and what is left after shrinking still means something.

mod resolve;

use crate::operation::{CreateSchedule, Search, SearchOf, Tags};
use crate::reference::{CRONS, TaskState};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Few, so that histories collide; one that a schedule makes.
const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "a.1", "s.60000"];
const SCHEDULES: [&str; 3] = ["s", "t", "u"];
const PIDS: [&str; 3] = ["p", "q", ""];
/// When histories begin. Before it there is room for what has happened already.
pub const START: i64 = 50_000;

#[derive(Debug, Clone)]
pub struct Step {
    advance: Advance,
    action: Action,
}

#[derive(Debug, Clone)]
enum Advance {
    Stay,
    By(i64),
    /// To one of the next deadlines, or a little before or after.
    Deadline {
        which: usize,
        off: i64,
    },
}

/// Which one is meant, resolved when the step is taken.
#[derive(Debug, Clone)]
enum Pick {
    Named(&'static str),
    TaskIn(TaskState, usize),
    /// A promise that is pending and that others may wait for.
    Awaitable(usize),
    /// A promise that a task awaits.
    Awaited(usize),
}

#[derive(Debug, Clone)]
enum Version {
    Right,
    Off(i64),
}

#[derive(Debug, Clone)]
enum Pid {
    Holder,
    Named(&'static str),
}

#[derive(Debug, Clone)]
struct Birth {
    id: Pick,
    timeout: Timeout,
    param: Value,
    tags: Tags,
}

#[derive(Debug, Clone)]
enum Timeout {
    In(i64),
    At(i64),
}

#[derive(Debug, Clone)]
struct Settlement {
    id: Pick,
    state: &'static str,
    value: Value,
}

#[derive(Debug, Clone)]
enum Action {
    Get(Pick),
    Create(Birth),
    Settle(Settlement),
    Callback {
        awaited: Pick,
        awaiter: Pick,
    },
    Listener {
        awaited: Pick,
        address: &'static str,
    },
    TaskGet(Pick),
    TaskCreate {
        birth: Birth,
        pid: &'static str,
        ttl: i64,
    },
    Acquire {
        task: Pick,
        version: Version,
        pid: &'static str,
        ttl: i64,
    },
    Release {
        task: Pick,
        version: Version,
    },
    Fulfill {
        task: Pick,
        version: Version,
        settlement: Settlement,
        own: bool,
    },
    /// `tidy`: without what makes it no request at all.
    Suspend {
        task: Pick,
        version: Version,
        awaited: Vec<Pick>,
        tidy: bool,
    },
    FenceCreate {
        task: Pick,
        version: Version,
        birth: Birth,
    },
    FenceSettle {
        task: Pick,
        version: Version,
        settlement: Settlement,
    },
    Heartbeat {
        pid: Pid,
        tasks: Vec<(Pick, Version)>,
    },
    Halt(Pick),
    Continue(Pick),
    ScheduleGet(&'static str),
    ScheduleCreate(CreateSchedule),
    ScheduleDelete(&'static str),
    Search(Search),
    Tick,
    Malformed {
        kind: &'static str,
        data: Value,
    },
}

fn id() -> impl Strategy<Value = &'static str> {
    select(&IDS[..])
}

fn task_in(state: TaskState) -> impl Strategy<Value = Pick> {
    prop_oneof![8 => (0usize..5).prop_map(move |n| Pick::TaskIn(state, n)), 1 => id().prop_map(Pick::Named)]
}

fn any_pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        3 => id().prop_map(Pick::Named),
        2 => (0usize..4).prop_map(Pick::Awaitable),
        2 => (0usize..3).prop_map(Pick::Awaited),
        2 => (0usize..4).prop_map(|n| Pick::TaskIn(TaskState::Suspended, n)),
        1 => (0usize..4).prop_map(|n| Pick::TaskIn(TaskState::Acquired, n)),
    ]
}

fn awaitable() -> impl Strategy<Value = Pick> {
    prop_oneof![6 => (0usize..3).prop_map(Pick::Awaitable), 1 => id().prop_map(Pick::Named)]
}

fn some_awaited() -> impl Strategy<Value = Vec<Pick>> {
    prop_oneof![15 => prop::collection::vec(awaitable(), 1..4), 1 => Just(Vec::new())]
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![9 => Just(Version::Right), 1 => select(vec![-1, 1, 2, i64::MAX, i64::MIN]).prop_map(Version::Off)]
}

fn ttl() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0i64..300, 8 => 300i64..60_000, 1 => select(vec![i64::MAX, -1])]
}

fn value() -> impl Strategy<Value = Value> {
    let values = [json!(null), json!({}), json!({"data": "djE="}), json!({"data": null, "headers": {"h": "1"}})];
    select(values.to_vec())
}

fn tags() -> impl Strategy<Value = Tags> {
    let role = prop_oneof![
        10 => Just(vec![("resonate:target", "poll://any@g")]),
        5 => Just(vec![("resonate:external", "true")]),
        3 => Just(vec![("resonate:timer", "true")]),
        2 => Just(vec![("resonate:scope", "global")]),
        2 => Just(vec![]),
        1 => Just(vec![("resonate:target", "http://localhost:1/w"), ("resonate:delay", "60000")]),
        1 => Just(vec![("resonate:target", ""), ("resonate:delay", "soon")]),
        1 => Just(vec![("resonate:external", "false"), ("resonate:timer", "no"), ("resonate:scope", "local")]),
        1 => Just(vec![("resonate:timer", "true"), ("resonate:target", "poll://any@g")]),
    ];
    let tree =
        prop::collection::vec((select(vec!["resonate:origin", "resonate:branch", "resonate:parent", "k"]), id()), 0..3);
    (role, tree)
        .prop_map(|(role, tree)| role.into_iter().chain(tree).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn timeout() -> impl Strategy<Value = Timeout> {
    prop_oneof![
        6 => (1i64..400).prop_map(Timeout::In),
        8 => (400i64..200_000).prop_map(Timeout::In),
        2 => (-50i64..1).prop_map(Timeout::In),
        4 => Just(Timeout::At(i64::MAX)),
        1 => select(vec![0, 1, -1, i64::MIN]).prop_map(Timeout::At),
    ]
}

fn birth() -> impl Strategy<Value = Birth> {
    let id = prop_oneof![30 => id(), 1 => Just("")].prop_map(Pick::Named);
    (id, timeout(), value(), tags()).prop_map(|(id, timeout, param, tags)| Birth { id, timeout, param, tags })
}

fn settlement(id: impl Strategy<Value = Pick>) -> impl Strategy<Value = Settlement> {
    let state = prop_oneof![
        8 => Just("resolved"), 3 => Just("rejected"), 3 => Just("rejected_canceled"),
        1 => select(vec!["pending", "rejected_timedout"]),
    ];
    (id, state, value()).prop_map(|(id, state, value)| Settlement { id, state, value })
}

fn schedule() -> impl Strategy<Value = CreateSchedule> {
    let crons: Vec<&str> = CRONS.iter().map(|(cron, _)| *cron).chain(["every day"]).collect();
    let promise = select(vec!["{{.id}}.{{.timestamp}}", "{{.timestamp}}", "{{.id}}", "a", "f", ""]);
    let timeout = select(vec![0, 1, 500, 30_000, 100_000, i64::MAX, -1]);
    (select(&SCHEDULES[..]), select(crons), promise, timeout, value(), tags()).prop_map(
        |(id, cron, promise, timeout, param, tags)| CreateSchedule {
            id: id.to_owned(),
            cron: cron.to_owned(),
            promise_id: promise.to_owned(),
            promise_timeout: timeout,
            promise_param: param,
            promise_tags: tags,
        },
    )
}

fn search() -> impl Strategy<Value = Search> {
    let of = select(vec![SearchOf::Promises, SearchOf::Tasks, SearchOf::Schedules]);
    let state = prop_oneof![
        3 => Just(None),
        3 => select(vec!["pending", "resolved", "rejected_timedout", "acquired", "suspended", "halted", "fulfilled"])
            .prop_map(Some),
    ];
    let tags = prop_oneof![2 => Just(Tags::new()), 1 => tags()];
    let limit = prop_oneof![2 => 0u32..4, 1 => Just(100)];
    (of, state, tags, limit).prop_map(|(of, state, tags, limit)| Search { of, state, tags, limit })
}

/// What the types of the protocol rule out.
fn malformed() -> impl Strategy<Value = Action> {
    select(vec![
        ("promise.get", json!({})),
        ("promise.get", json!({"id": 1})),
        ("promise.create", json!({"id": "a"})),
        ("promise.create", json!({"id": "a", "timeoutAt": "soon"})),
        ("promise.create", json!({"id": "a", "timeoutAt": 1.5})),
        ("promise.create", json!({"id": "a", "timeoutAt": 100_000, "tags": {"k": 1}})),
        ("promise.create", json!({"id": "a", "timeoutAt": 100_000, "param": "text"})),
        ("promise.settle", json!({"id": "a", "state": "resolved", "value": []})),
        ("promise.delete", json!({"id": "a"})),
        ("task.create", json!({"pid": "p", "ttl": 10})),
        ("task.acquire", json!({"id": "a", "version": "0", "pid": "p", "ttl": 10})),
        ("task.suspend", json!({"id": "a", "version": 1, "actions": {}})),
        ("task.fence", json!({"id": "a", "version": 1, "action": {"kind": "promise.get", "data": {"id": "b"}}})),
        ("task.heartbeat", json!({"pid": "p"})),
        ("promise.search", json!({"cursor": "none"})),
        ("debug.tick", json!({})),
    ])
    .prop_map(|(kind, data)| Action::Malformed { kind, data })
}

fn action() -> impl Strategy<Value = Action> {
    use TaskState::{Acquired, Halted, Pending, Suspended};
    let pid = || select(&PIDS[..]);
    let own = || prop_oneof![20 => Just(true), 1 => Just(false)];
    let any_task = || prop_oneof![task_in(Pending), task_in(Acquired), task_in(Suspended), task_in(Halted)];
    let address =
        select(vec!["poll://any@g", "poll://uni@g/p", "http://localhost:1/", "https://h", "poll://g", "ftp://x"]);
    let holder = prop_oneof![4 => Just(Pid::Holder), 1 => pid().prop_map(Pid::Named)];
    prop_oneof![
        3 => any_pick().prop_map(Action::Get),
        16 => birth().prop_map(Action::Create),
        8 => settlement(any_pick()).prop_map(Action::Settle),
        4 => (any_pick(), any_task()).prop_map(|(awaited, awaiter)| Action::Callback { awaited, awaiter }),
        3 => (any_pick(), address).prop_map(|(awaited, address)| Action::Listener { awaited, address }),
        3 => any_task().prop_map(Action::TaskGet),
        5 => (birth(), pid(), ttl()).prop_map(|(birth, pid, ttl)| Action::TaskCreate { birth, pid, ttl }),
        14 => (task_in(Pending), version(), pid(), ttl())
            .prop_map(|(task, version, pid, ttl)| Action::Acquire { task, version, pid, ttl }),
        3 => (task_in(Acquired), version()).prop_map(|(task, version)| Action::Release { task, version }),
        3 => (task_in(Acquired), version(), settlement(id().prop_map(Pick::Named)), own())
            .prop_map(|(task, version, settlement, own)| Action::Fulfill { task, version, settlement, own }),
        12 => (task_in(Acquired), version(), some_awaited(), own())
            .prop_map(|(task, version, awaited, tidy)| Action::Suspend { task, version, awaited, tidy }),
        5 => (task_in(Acquired), version(), birth())
            .prop_map(|(task, version, birth)| Action::FenceCreate { task, version, birth }),
        4 => (task_in(Acquired), version(), settlement(any_pick()))
            .prop_map(|(task, version, settlement)| Action::FenceSettle { task, version, settlement }),
        3 => (holder, prop::collection::vec((task_in(Acquired), version()), 0..3))
            .prop_map(|(pid, tasks)| Action::Heartbeat { pid, tasks }),
        3 => any_task().prop_map(Action::Halt),
        3 => task_in(Halted).prop_map(Action::Continue),
        1 => select(&SCHEDULES[..]).prop_map(Action::ScheduleGet),
        2 => schedule().prop_map(Action::ScheduleCreate),
        1 => select(&SCHEDULES[..]).prop_map(Action::ScheduleDelete),
        2 => search().prop_map(Action::Search),
        7 => Just(Action::Tick),
        1 => malformed(),
    ]
}

/// One step.
pub fn steps() -> impl Strategy<Value = Step> {
    let advance = prop_oneof![
        12 => Just(Advance::Stay),
        3 => (1i64..40).prop_map(Advance::By),
        1 => (40i64..3_000).prop_map(Advance::By),
        3 => (0usize..3, -1i64..2).prop_map(|(which, off)| Advance::Deadline { which, off }),
    ];
    (advance, action()).prop_map(|(advance, action)| Step { advance, action })
}

/// Something to begin with, that lives for a while: tasks, most of them held, and promises to wait for.
fn first_births() -> impl Strategy<Value = Vec<Step>> {
    let role = || prop_oneof![1 => Just("pending"), 3 => Just("held"), 3 => Just("external")];
    let timeout = || prop_oneof![(300i64..60_000).prop_map(Timeout::In), Just(Timeout::At(i64::MAX))];
    prop::collection::vec((role(), timeout(), 100i64..5_000), 0..=7).prop_map(|births| {
        let births = births.into_iter().zip(IDS).map(|((role, timeout, ttl), id)| {
            let (name, value) =
                if role == "external" { ("resonate:external", "true") } else { ("resonate:target", "poll://any@g") };
            let tags = Tags::from([(name.to_owned(), value.to_owned())]);
            let birth = Birth { id: Pick::Named(id), timeout, param: Value::Null, tags };
            if role == "held" { Action::TaskCreate { birth, pid: "p", ttl } } else { Action::Create(birth) }
        });
        births.map(|action| Step { advance: Advance::Stay, action }).collect()
    })
}

/// Histories of up to `longest` steps, besides those that fill the store.
pub fn histories(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    (first_births(), prop::collection::vec(steps(), 1..=longest)).prop_map(|(first, then)| [first, then].concat())
}
