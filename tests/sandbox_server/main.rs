//! The sandbox's server over real HTTP: pairing, sessions, tables, admin, and what it refuses.

mod admin;
mod auth;
mod context;
mod pairing;
mod refusals;
mod tables;
