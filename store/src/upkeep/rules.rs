//! What holds in every store between two transactions, as queries for what breaks it.

/// One rule. A promise that is past its timeout may still be stored as pending: what is meant is what is stored.
pub struct Rule {
    /// What the ids name.
    pub what: &'static str,
    /// What is wrong with those that are found.
    pub broken: &'static str,
    /// Answers their ids.
    pub query: &'static str,
}

const fn rule(what: &'static str, broken: &'static str, query: &'static str) -> Rule {
    Rule { what, broken, query }
}

/// All of them.
pub const RULES: &[Rule] = &[
    rule("promise", "has a state that is none", "SELECT id FROM promises WHERE state NOT IN (0, 1, 2, 3, 4)"),
    rule(
        "promise",
        "is pending and has a time at which it was settled, or is settled and has none",
        "SELECT id FROM promises WHERE (state = 0) <> (settled_at IS NULL)",
    ),
    rule("promise", "is pending and has a value", "SELECT id FROM promises WHERE state = 0 AND value <> '{}'"),
    rule(
        "promise",
        "timed out at another time than its timeout, or is a timer, which resolves then",
        "SELECT id FROM promises WHERE state = 4 AND (settled_at IS NOT timeout_at OR timer <> 0)",
    ),
    rule(
        "promise",
        "has a param, a value or tags that are no JSON object",
        "SELECT id FROM promises WHERE coalesce(json_type(CASE WHEN json_valid(param) THEN param END), '') <> 'object' \
         OR coalesce(json_type(CASE WHEN json_valid(value) THEN value END), '') <> 'object' \
         OR coalesce(json_type(CASE WHEN json_valid(tags) THEN tags END), '') <> 'object'",
    ),
    rule(
        "promise",
        "is stored under an origin, branch, parent or target that its tags do not name",
        "SELECT id FROM promises WHERE CASE WHEN json_valid(tags) THEN \
         origin IS NOT coalesce(tags ->> '$.\"resonate:origin\"', id) OR branch IS NOT tags ->> '$.\"resonate:branch\"' \
         OR parent IS NOT tags ->> '$.\"resonate:parent\"' OR target IS NOT tags ->> '$.\"resonate:target\"' \
         OR (timer = 1) <> coalesce(tags ->> '$.\"resonate:timer\"' = 'true', 0) END",
    ),
    rule(
        "promise",
        "may be waited for, but its timeout would not fire",
        "SELECT id FROM promises WHERE external <> 1 AND (timer = 1 OR target IS NOT NULL OR CASE WHEN json_valid(tags) THEN \
         tags ->> '$.\"resonate:external\"' = 'true' OR tags ->> '$.\"resonate:scope\"' = 'global' END)",
    ),
    rule(
        "promise",
        "has a target and no task",
        "SELECT id FROM promises WHERE target IS NOT NULL AND id NOT IN (SELECT id FROM tasks)",
    ),
    rule("task", "has no promise", "SELECT id FROM tasks WHERE id NOT IN (SELECT id FROM promises)"),
    rule(
        "task",
        "belongs to a promise without a target, or is offered to another one",
        "SELECT t.id FROM tasks t JOIN promises p ON p.id = t.id WHERE t.address IS NOT CASE \
         WHEN p.target >= 'poll://any@' AND p.target < 'poll://anyA' AND instr(substr(p.target, 12), '/') > 0 \
         THEN substr(p.target, 1, 10 + instr(substr(p.target, 12), '/')) ELSE p.target END",
    ),
    rule(
        "task",
        "has a state, a version or a count of resumptions that is none",
        "SELECT id FROM tasks WHERE state NOT IN (0, 1, 2, 3, 4) OR version < 0 OR resumes < 0",
    ),
    rule(
        "task",
        "is acquired without a whole lease (worker, length, end)",
        "SELECT id FROM tasks WHERE state = 1 AND (pid IS NULL OR ttl IS NULL OR lease_end IS NULL)",
    ),
    rule(
        "task",
        "is not acquired and has a lease",
        "SELECT id FROM tasks WHERE state <> 1 AND (pid IS NOT NULL OR ttl IS NOT NULL OR lease_end IS NOT NULL)",
    ),
    rule(
        "task",
        "is delayed though it is not pending",
        "SELECT id FROM tasks WHERE state <> 0 AND not_before IS NOT NULL",
    ),
    rule(
        "task",
        "is fulfilled while its promise is pending, or the other way round",
        "SELECT t.id FROM tasks t JOIN promises p ON p.id = t.id WHERE (t.state = 4) <> (p.state <> 0)",
    ),
    rule(
        "task",
        "is suspended, and nothing would wake it",
        "SELECT id FROM tasks WHERE state = 2 AND id NOT IN (SELECT awaiter FROM callbacks)",
    ),
    rule(
        "task",
        "is suspended or fulfilled and has resumptions",
        "SELECT id FROM tasks WHERE state IN (2, 4) AND resumes <> 0",
    ),
    rule(
        "promise",
        "is waited for and is not there, is settled, or never fires",
        "SELECT DISTINCT c.awaited FROM callbacks c LEFT JOIN promises p ON p.id = c.awaited \
         WHERE p.id IS NULL OR p.state <> 0 OR p.external <> 1",
    ),
    rule(
        "task",
        "waits for something and is not there",
        "SELECT DISTINCT awaiter FROM callbacks WHERE awaiter NOT IN (SELECT id FROM tasks)",
    ),
    rule(
        "promise",
        "is listened to and is not there, is settled, or never fires",
        "SELECT DISTINCT l.promise FROM listeners l LEFT JOIN promises p ON p.id = l.promise \
         WHERE p.id IS NULL OR p.state <> 0 OR p.external <> 1",
    ),
    rule(
        "schedule",
        "has run after it runs next, or runs next before it was created",
        "SELECT id FROM schedules WHERE last_run_at >= next_run_at OR next_run_at < created_at",
    ),
    rule(
        "schedule",
        "has a param or tags that are no JSON object",
        "SELECT id FROM schedules WHERE coalesce(json_type(CASE WHEN json_valid(promise_param) THEN promise_param END), '') <> \
         'object' OR coalesce(json_type(CASE WHEN json_valid(promise_tags) THEN promise_tags END), '') <> 'object'",
    ),
    rule(
        "bucket",
        "counts other keys or bytes than it holds",
        "SELECT b.name FROM kv_buckets b LEFT JOIN (SELECT bucket, count(*) AS keys, \
         sum(length(CAST(key AS BLOB)) + length(value)) AS bytes FROM kv_entries GROUP BY bucket) e ON e.bucket = b.id \
         WHERE b.keys <> coalesce(e.keys, 0) OR b.bytes <> coalesce(e.bytes, 0)",
    ),
    rule(
        "bucket",
        "holds a key of a version that it has not reached",
        "SELECT DISTINCT b.name FROM kv_entries e JOIN kv_buckets b ON b.id = e.bucket WHERE e.version > b.version OR e.version < 1",
    ),
    rule(
        "key",
        "is in a bucket that is not there",
        "SELECT key FROM kv_entries WHERE bucket NOT IN (SELECT id FROM kv_buckets)",
    ),
    rule(
        "outcome",
        "belongs to a promise that is not there",
        "SELECT key FROM kv_outcomes WHERE owner NOT IN (SELECT id FROM promises)",
    ),
];
