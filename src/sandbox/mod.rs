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
mod contents;
mod credentials;
mod drives;
mod functions;
mod guard;
mod health;
mod jwt;
mod liveness;
mod places;
mod rate;
mod realtime;
pub mod rest;
mod retention;
mod routes;
mod rows;
mod rules;
mod secrets;
mod server;
mod storage;
pub mod store;

#[cfg(test)]
mod tests;

pub use caller::Caller;
pub use client::{AdminClient, AdminClientError};
pub use contents::ContentError;
pub use drives::DriveLimits;
pub use functions::{EdgeFunction, EdgeRequest};
#[cfg(fuzzing)]
pub use realtime::fuzzing as realtime_fuzzing;
pub use secrets::SecretsError;
pub use server::{Server, ServerError, ServerOptions};
pub use storage::StorageLimits;
