//! The sandbox's server over real HTTP: pairing, sessions, tables, admin, and what it refuses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers fail a test as its own body would")]

mod admin;
mod auth;
mod context;
mod fixtures;
mod operation;
mod pairing;
mod realtime;
mod refusals;
mod strangers;
mod tables;
