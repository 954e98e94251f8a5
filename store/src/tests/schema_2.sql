-- The tables of schema 2, as it created them.
CREATE TABLE promises (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    state      INTEGER NOT NULL,
    param      TEXT NOT NULL,
    value      TEXT NOT NULL,
    tags       TEXT NOT NULL,
    timeout_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    origin     TEXT NOT NULL,
    branch     TEXT,
    parent     TEXT,
    target     TEXT,
    timer      INTEGER NOT NULL,
    -- Last, and with a default, as in a file that was made before there was such a thing.
    external   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX promises_due ON promises (timeout_at) WHERE state = 0 AND external = 1;
CREATE INDEX promises_origin ON promises (origin);
CREATE INDEX promises_branch ON promises (branch) WHERE branch IS NOT NULL AND branch <> id;
-- Only those that the index of branches does not find: a step, which is on its parent's branch, is in one of them.
CREATE INDEX promises_parent ON promises (parent) WHERE parent IS NOT NULL AND parent <> id AND (branch IS NULL OR branch <> parent);
CREATE INDEX promises_ended ON promises (coalesce(settled_at, timeout_at)) WHERE origin = id AND (state <> 0 OR external = 0);

CREATE TABLE tasks (
    seq       INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    state     INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    -- Any worker of a group: without the worker that was preferred.
    address   TEXT NOT NULL,
    queued    INTEGER NOT NULL,
    not_before INTEGER,
    pid       TEXT,
    ttl       INTEGER,
    lease_end INTEGER,
    resumes   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_queue ON tasks (address, queued) WHERE state = 0;
CREATE INDEX tasks_delayed ON tasks (not_before) WHERE state = 0 AND not_before IS NOT NULL;
CREATE INDEX tasks_lease ON tasks (lease_end) WHERE state = 1;
CREATE INDEX tasks_pid ON tasks (pid) WHERE state = 1;

CREATE TABLE callbacks (
    awaited TEXT NOT NULL,
    awaiter TEXT NOT NULL,
    PRIMARY KEY (awaited, awaiter)
) WITHOUT ROWID;
CREATE INDEX callbacks_awaiter ON callbacks (awaiter);

CREATE TABLE listeners (
    promise TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (promise, address)
) WITHOUT ROWID;

CREATE TABLE schedules (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    cron            TEXT NOT NULL,
    promise_id      TEXT NOT NULL,
    promise_timeout INTEGER NOT NULL,
    promise_param   TEXT NOT NULL,
    promise_tags    TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    next_run_at     INTEGER NOT NULL,
    last_run_at     INTEGER
);
CREATE INDEX schedules_due ON schedules (next_run_at);

CREATE TABLE local_workers (pid TEXT PRIMARY KEY) WITHOUT ROWID;
PRAGMA application_id = 1885435756;
PRAGMA user_version = 2;
