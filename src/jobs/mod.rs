//! Jobs: queue, claim, handlers, completion.
//!
//! [`Queue`] is pure and decides what may run. The [`Controller`] task owns it, spawns one task a
//! job and learns of each end. A job's own life (claim, duplicate check, handler, report) is in
//! `life`. Before the claim a record goes to the [`journal`], and a gateway that starts first brings
//! the records of an earlier one to their ends. Shutdown: the controller first stops accepting, then
//! waits for its jobs, or cancels them.

mod audit;
mod controller;
mod handlers;
pub mod journal;
mod late_claims;
mod life;
mod machine_control;
mod patience;
mod progress;
mod queue;
mod report;
mod run_end;
mod run_event;
mod run_events;
mod stop;
mod subagent_dirs;
mod subagent_failure;
mod subagents;
mod twin;
mod view;

pub use controller::{Activity, Controller, Level, News, Offer};
pub use handlers::Host;
pub(crate) use handlers::MODEL_WORK;
pub(crate) use machine_control::HEARTBEAT_FRESH;
pub use queue::{Entry, Gate, Offered, Queue, Slots, Work};
pub(crate) use run_events::Turns as EventTurns;
pub use stop::{JobStop, StopReason};
pub(crate) use subagent_dirs::{WORK as SUBAGENT_WORK, bound as bound_kept_folders};
pub(crate) use subagents::Subagents;
pub(crate) use twin::Twin;
pub use view::{ActiveJob, JobList, JobPhase, QueuedJob, Target};
