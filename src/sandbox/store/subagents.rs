//! The tables of subagents that REST shows: each gateway sees those that are assigned to it.

use super::schema::{Column, Fallback, Insert, Moves, Rights, Table, Type, Update};
use super::tables::{NOTHING, OWN_GATEWAY, OWN_TEAM};

/// A gateway reports on what runs; who starts a subagent or a run is its team.
const REPORTS: Rights = Rights {
    select: Some(&[OWN_TEAM, OWN_GATEWAY]),
    update: Some(Update {
        // No others than those that may be read.
        rows: &[],
        columns: &["status", "output", "error", "metadata", "started_at", "completed_at"],
        pinned: &[],
        moves: Some(Moves {
            column: "status",
            steps: &[
                ("running", "running"),
                ("running", "completed"),
                ("running", "failed"),
                ("running", "cancelled"),
            ],
            always: &[],
        }),
    }),
    ..NOTHING
};

/// A coding agent that continues from run to run.
pub(super) static SUBAGENTS: Table = Table {
    name: "subagents",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("team_id", Type::Uuid),
        Column::new("gateway_id", Type::Uuid).nullable(),
        Column::new("owner_agent_id", Type::Uuid).nullable(),
        Column::new("subagent_type", Type::Text),
        Column::new("status", Type::Text),
        Column::new("config", Type::Jsonb),
        Column::new("input", Type::Jsonb),
        Column::new("output", Type::Jsonb).nullable(),
        Column::new("error", Type::Text).nullable(),
        Column::new("metadata", Type::Jsonb),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("updated_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("started_at", Type::Timestamptz).nullable(),
        Column::new("completed_at", Type::Timestamptz).nullable(),
    ],
    key: &["id"],
    unique: &[],
    touched: Some("updated_at"),
    rights: REPORTS,
};

/// One prompt and what came of it.
pub(super) static SUBAGENT_RUNS: Table = Table {
    name: "subagent_runs",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("subagent_id", Type::Uuid),
        Column::new("team_id", Type::Uuid),
        Column::new("gateway_id", Type::Uuid),
        Column::new("run_sequence", Type::Int4),
        Column::new("status", Type::Text),
        Column::new("prompt", Type::Text),
        Column::new("output", Type::Jsonb).nullable(),
        Column::new("error", Type::Text).nullable(),
        Column::new("metadata", Type::Jsonb),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("started_at", Type::Timestamptz).nullable(),
        Column::new("completed_at", Type::Timestamptz).nullable(),
        Column::new("cancellation_requested_at", Type::Timestamptz).nullable(),
    ],
    key: &["id"],
    unique: &[&["subagent_id", "run_sequence"]],
    touched: None,
    rights: REPORTS,
};

/// What happened in a run. A row that is there is never changed.
pub(super) static SUBAGENT_RUN_EVENTS: Table = Table {
    name: "subagent_run_events",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("run_id", Type::Uuid),
        Column::new("subagent_id", Type::Uuid),
        Column::new("team_id", Type::Uuid),
        Column::new("gateway_id", Type::Uuid),
        Column::new("sequence", Type::Int4),
        Column::new("event_type", Type::Text),
        Column::new("payload", Type::Jsonb),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
    ],
    key: &["id"],
    unique: &[&["run_id", "sequence"]],
    touched: None,
    rights: Rights {
        select: Some(&[OWN_TEAM, OWN_GATEWAY]),
        insert: Some(Insert {
            columns: &[
                "id",
                "run_id",
                "subagent_id",
                "team_id",
                "gateway_id",
                "sequence",
                "event_type",
                "payload",
            ],
            owned: &[OWN_GATEWAY, OWN_TEAM],
        }),
        ..NOTHING
    },
};
