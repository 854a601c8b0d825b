-- Times are milliseconds since 1970 UTC. Spans are nanoseconds. Money is micro-units.
-- Numbers that may need 64 bits without a sign are kept bit for bit in SQLite's signed ones.
-- written_at is the registry's clock when the row was last written.

CREATE TABLE leases (
  role       TEXT PRIMARY KEY,
  epoch      INTEGER NOT NULL,
  holder     TEXT,              -- null: given back
  until_at   INTEGER NOT NULL,
  written_at INTEGER NOT NULL
) STRICT;

CREATE TABLE services (
  name       TEXT PRIMARY KEY,
  document   TEXT NOT NULL,
  generation INTEGER NOT NULL,
  revision   INTEGER NOT NULL,
  deleting   INTEGER NOT NULL,
  scale_hold INTEGER,
  memory     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE revisions (
  service    TEXT NOT NULL,
  revision   INTEGER NOT NULL,
  document   TEXT NOT NULL,
  written_at INTEGER NOT NULL,
  PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;

-- The last numbers of removed names; the row with the empty name stands for all forgotten ones.
CREATE TABLE retired (
  kind       TEXT NOT NULL,
  name       TEXT NOT NULL,
  generation INTEGER NOT NULL,
  revision   INTEGER NOT NULL,
  written_at INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
  id           TEXT PRIMARY KEY,
  service      TEXT NOT NULL,
  revision     INTEGER NOT NULL,
  node         TEXT,
  cpu_millis   INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  state        TEXT NOT NULL,
  state_since  INTEGER NOT NULL,
  deadline     INTEGER,
  address      TEXT,
  tier         TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  ready_at     INTEGER,
  expires_at   INTEGER,
  restarts     INTEGER NOT NULL,
  replaces     TEXT,
  reason       TEXT NOT NULL,
  written_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX instances_of_revision ON instances (service, revision) WHERE state <> 'stopped';
CREATE INDEX instances_ended ON instances (state_since, id) WHERE state = 'stopped';
CREATE INDEX instances_ended_of ON instances (service, state_since, id) WHERE state = 'stopped';

CREATE TABLE decisions (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  at            INTEGER NOT NULL,
  service       TEXT NOT NULL,
  from_count    INTEGER NOT NULL,
  to_count      INTEGER NOT NULL,
  reason        TEXT NOT NULL,
  inputs        TEXT NOT NULL,
  clamps        TEXT NOT NULL,  -- a JSON array of texts
  waiting_for   TEXT,
  cost_delta    INTEGER NOT NULL,
  actor         TEXT NOT NULL,
  written_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX decisions_by_time ON decisions (at, seq);
CREATE INDEX decisions_of ON decisions (service, at, seq);

CREATE TABLE events (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  at         INTEGER NOT NULL,
  kind       TEXT NOT NULL,
  subject    TEXT NOT NULL,
  what       TEXT NOT NULL,
  detail     TEXT NOT NULL,
  named      TEXT NOT NULL,     -- name=value words
  written_at INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
  id              TEXT PRIMARY KEY,
  name            TEXT NOT NULL,
  node_type       TEXT NOT NULL,
  provider        TEXT NOT NULL,
  provider_ref    TEXT,
  state           TEXT NOT NULL,
  state_since     INTEGER NOT NULL,
  deadline        INTEGER,
  address         TEXT,
  executor_url    TEXT,
  cpu_millis      INTEGER NOT NULL,
  memory_bytes    INTEGER NOT NULL,
  disk_bytes      INTEGER NOT NULL,
  cpu_class       TEXT NOT NULL,
  disk_type       TEXT NOT NULL,
  labels          TEXT NOT NULL, -- a JSON object of texts
  price           INTEGER NOT NULL,
  billing_unit    INTEGER NOT NULL,
  billing_minimum INTEGER NOT NULL,
  min_life        INTEGER NOT NULL,
  stop_lead       INTEGER NOT NULL,
  may_stop        INTEGER NOT NULL,
  drain_reason    TEXT,
  drain_deadline  INTEGER,
  ordered_at      INTEGER NOT NULL,
  ready_at        INTEGER,
  seen_at         INTEGER,
  stopped_at      INTEGER,
  secret_hash     TEXT,
  reason          TEXT NOT NULL,
  written_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX nodes_ended ON nodes (state_since, id) WHERE state = 'stopped';

CREATE TABLE node_types (
  name            TEXT PRIMARY KEY,
  provider        TEXT NOT NULL,
  cpu_millis      INTEGER NOT NULL,
  memory_bytes    INTEGER NOT NULL,
  disk_bytes      INTEGER NOT NULL,
  cpu_class       TEXT NOT NULL,
  disk_type       TEXT NOT NULL,
  price           INTEGER NOT NULL,
  billing_unit    INTEGER NOT NULL,
  billing_minimum INTEGER NOT NULL,
  min_life        INTEGER NOT NULL,
  stop_lead       INTEGER NOT NULL,
  max_count       INTEGER NOT NULL,
  labels          TEXT NOT NULL,
  pool_min        INTEGER NOT NULL,
  pool_state      TEXT NOT NULL,
  start_command   TEXT NOT NULL, -- JSON arrays of texts
  stop_command    TEXT NOT NULL,
  list_command    TEXT NOT NULL,
  generation      INTEGER NOT NULL,
  document        TEXT NOT NULL,
  updated_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row at most.
CREATE TABLE budget (
  one           INTEGER PRIMARY KEY CHECK (one = 1),
  currency      TEXT NOT NULL,
  cap_kind      TEXT NOT NULL,
  cap_amount    INTEGER,
  reserve       INTEGER NOT NULL,
  strict_pacing INTEGER NOT NULL,
  generation    INTEGER NOT NULL,
  document      TEXT NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  at         INTEGER NOT NULL,
  node       TEXT NOT NULL,
  node_type  TEXT NOT NULL,
  kind       TEXT NOT NULL,
  amount     INTEGER NOT NULL,
  from_at    INTEGER NOT NULL,
  until_at   INTEGER NOT NULL,
  note       TEXT NOT NULL,
  written_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_by_period ON ledger (from_at, seq);

CREATE TABLE node_tokens (
  hash       TEXT PRIMARY KEY,
  node_type  TEXT NOT NULL,
  node       TEXT,
  name       TEXT,
  expires_at INTEGER NOT NULL,
  written_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE node_stats (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  node         TEXT NOT NULL,
  at           INTEGER NOT NULL,
  cpu_millis   INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  disk_bytes   INTEGER NOT NULL,
  rx           INTEGER NOT NULL,
  tx           INTEGER NOT NULL
) STRICT;
CREATE INDEX node_stats_of ON node_stats (node, at, seq);
CREATE INDEX node_stats_by_time ON node_stats (at);

CREATE TABLE instance_stats (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  instance     TEXT NOT NULL,
  at           INTEGER NOT NULL,
  cpu_millis   INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  throttled    INTEGER NOT NULL
) STRICT;
CREATE INDEX instance_stats_of ON instance_stats (instance, at, seq);
CREATE INDEX instance_stats_by_time ON instance_stats (at);

CREATE TABLE service_stats (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  service  TEXT NOT NULL,
  at       INTEGER NOT NULL,
  load     INTEGER,
  desired  INTEGER NOT NULL,
  ready    INTEGER NOT NULL,
  starting INTEGER NOT NULL,
  draining INTEGER NOT NULL,
  queued   INTEGER NOT NULL,
  rps      INTEGER NOT NULL
) STRICT;
CREATE INDEX service_stats_of ON service_stats (service, at, seq);
CREATE INDEX service_stats_by_time ON service_stats (at);

-- What the machine-planner remembers; one row at most.
CREATE TABLE machine_memory (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  content    TEXT NOT NULL,
  written_at INTEGER NOT NULL
) STRICT;

CREATE TABLE settings (
  name       TEXT PRIMARY KEY,
  content    TEXT NOT NULL,
  written_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
