//! The sandbox's server over real HTTP: pairing, sessions, tables, admin, and what it refuses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers fail a test as its own body would")]

mod added;
mod admin;
mod auth;
mod bad_input;
mod context;
mod drives;
mod fixtures;
mod functions;
mod load;
mod operation;
mod pairing;
mod process;
mod realtime;
mod refusals;
mod storage;
mod strangers;
mod subagents;
mod tables;
mod vms;
