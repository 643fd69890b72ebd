//! `start`: wiring, supervisors, shutdown order, status socket.
//!
//! [`Gateway::prepare`] takes the instance lock and everything else that needs no network;
//! [`Gateway::run`] lives until it is stopped. Supervisors (session, heartbeat, ingress, jobs,
//! providers, realtime, hygiene, config watch, clock, status socket, metrics, liveness, service
//! manager) are named tasks that talk through
//! `shared::Shared`; one that panics or returns is logged, counted and started again. Shutdown, in
//! order: stop accepting and say `pending`, wait for the jobs (or cancel them), say `offline`, stop
//! the supervisors, remove pid file and socket. An upgrade (`upgrade`) drains too, and then hands over
//! to the new version instead.

mod capabilities;
mod clock;
mod config_watch;
mod contact;
mod deliveries;
mod drive_sync;
mod events;
mod file_watch;
mod gateway;
pub mod health;
mod heartbeat;
mod house_audit;
pub(crate) mod hygiene;
mod identity;
mod ingress;
mod liveness;
mod memory;
mod metrics;
mod metrics_server;
pub mod notify;
mod process_facts;
mod providers;
mod realtime;
mod service_manager;
mod session;
mod shared;
pub mod status;
mod status_rule;
mod status_socket;
mod supervisor;
pub mod upgrade;
pub mod validation;

pub use gateway::{ExitReason, Gateway, GatewayHandle, GatewayOptions, StartError};
