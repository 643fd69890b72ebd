//! The sandbox's tables that REST shows, and who may do what with them.
//!
//! Teams, pairing codes, sessions and refresh tokens are not here, so REST does not know them.

use super::schema::{
    Claim, Column, Fallback, Function, Insert, Moves, Owned, Rights, Table, Type, Update,
};
use super::subagents::{SUBAGENT_RUN_EVENTS, SUBAGENT_RUNS, SUBAGENTS};

pub(super) const OWN_TEAM: Owned = Owned { column: "team_id", claim: Claim::TeamId };
pub(super) const OWN_GATEWAY: Owned = Owned { column: "gateway_id", claim: Claim::GatewayId };
pub(super) const NOTHING: Rights =
    Rights { select: None, insert: None, update: None, delete: None };

/// All of them.
pub(super) static BUILT_IN: [&Table; 7] = [
    &GATEWAY_JOBS,
    &TEAM_GATEWAYS,
    &GATEWAY_EVENTS,
    &TEAM_RESOURCES,
    &SUBAGENTS,
    &SUBAGENT_RUNS,
    &SUBAGENT_RUN_EVENTS,
];

/// All functions below `rpc/`.
pub(super) static FUNCTIONS: [&Function; 1] = [&super::placeholders::RESOLVE];

/// A gateway reads its team's jobs (to see duplicates) and reports on its own.
static GATEWAY_JOBS: Table = Table {
    name: "gateway_jobs",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("team_id", Type::Uuid),
        Column::new("gateway_id", Type::Uuid),
        Column::new("job_type", Type::Text),
        Column::new("payload", Type::Jsonb),
        Column::new("status", Type::Text),
        Column::new("result", Type::Jsonb).nullable(),
        Column::new("error", Type::Text).nullable(),
        Column::new("debug", Type::Jsonb).nullable(),
        Column::new("attempt", Type::Int4),
        Column::new("idempotency_key", Type::Text).nullable(),
        Column::new("retry_of_job_id", Type::Uuid).nullable(),
        Column::new("requested_via", Type::Text).nullable(),
        Column::new("requested_by_agent_id", Type::Uuid).nullable(),
        Column::new("requested_by_user_id", Type::Uuid).nullable(),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("updated_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("started_at", Type::Timestamptz).nullable(),
        Column::new("completed_at", Type::Timestamptz).nullable(),
    ],
    key: &["id"],
    unique: &[],
    touched: Some("updated_at"),
    rights: Rights {
        select: Some(&[OWN_TEAM]),
        update: Some(Update {
            rows: &[OWN_GATEWAY],
            columns: &["status", "result", "error", "debug", "started_at", "completed_at"],
            pinned: &[OWN_GATEWAY],
            moves: Some(Moves {
                column: "status",
                steps: &[
                    ("queued", "running"),
                    ("running", "running"),
                    ("running", "completed"),
                    ("running", "failed"),
                    ("running", "cancelled"),
                ],
                always: &["debug"],
            }),
        }),
        ..NOTHING
    },
};

/// A gateway reads its own row; heartbeats change it.
static TEAM_GATEWAYS: Table = Table {
    name: "team_gateways",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("team_id", Type::Uuid),
        Column::new("device_name", Type::Text),
        Column::new("status", Type::Text),
        Column::new("capabilities", Type::Jsonb),
        Column::new("full_control_enabled", Type::Bool),
        Column::new("last_seen_at", Type::Timestamptz).nullable(),
        Column::new("ready_at", Type::Timestamptz).nullable(),
        Column::new("vm_id", Type::Text).nullable(),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("updated_at", Type::Timestamptz).or(Fallback::Now),
    ],
    key: &["id"],
    unique: &[],
    touched: Some("updated_at"),
    rights: Rights {
        select: Some(&[OWN_TEAM, Owned { column: "id", claim: Claim::GatewayId }]),
        ..NOTHING
    },
};

/// A gateway adds to its log and cannot read it back.
static GATEWAY_EVENTS: Table = Table {
    name: "gateway_events",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("gateway_id", Type::Uuid),
        Column::new("team_id", Type::Uuid),
        Column::new("provider", Type::Text).nullable(),
        Column::new("level", Type::Text),
        Column::new("code", Type::Text).nullable(),
        Column::new("message", Type::Text),
        Column::new("details", Type::Jsonb),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
    ],
    key: &["id"],
    unique: &[],
    touched: None,
    rights: Rights {
        insert: Some(Insert {
            // The id is the client's to choose, so that a repeated insert does nothing.
            columns: &[
                "id",
                "gateway_id",
                "team_id",
                "provider",
                "level",
                "code",
                "message",
                "details",
            ],
            owned: &[OWN_GATEWAY, OWN_TEAM],
        }),
        ..NOTHING
    },
};

/// A gateway reads what its team was granted.
static TEAM_RESOURCES: Table = Table {
    name: "team_resources",
    columns: &[
        Column::new("id", Type::Uuid).or(Fallback::NewUuid),
        Column::new("team_id", Type::Uuid),
        Column::new("resource_type", Type::Text),
        Column::new("max_access_level", Type::Text),
        Column::new("metadata", Type::Jsonb),
        Column::new("created_at", Type::Timestamptz).or(Fallback::Now),
        Column::new("updated_at", Type::Timestamptz).or(Fallback::Now),
    ],
    key: &["id"],
    unique: &[],
    touched: Some("updated_at"),
    rights: Rights { select: Some(&[OWN_TEAM]), ..NOTHING },
};
