//! The embedded local control plane: the backend's contract on SQLite, in this binary.
//!
//! It is a server in its own right: rows survive a restart and access rules are enforced. Loopback
//! only unless asked otherwise; every request's `Host` is checked, every body bounded, every secret
//! compared in constant time and kept as a hash where a hash will do.

mod accept;
mod access;
mod admin;
mod app;
mod auth;
mod body;
mod caller;
pub mod client;
mod credentials;
mod functions;
mod guard;
mod jwt;
mod liveness;
mod rate;
mod realtime;
pub mod rest;
mod routes;
mod rows;
mod secrets;
mod server;
pub mod store;

pub use caller::Caller;
pub use client::{AdminClient, AdminClientError};
#[cfg(fuzzing)]
pub use realtime::fuzzing as realtime_fuzzing;
pub use secrets::SecretsError;
pub use server::{Server, ServerError, ServerOptions};
