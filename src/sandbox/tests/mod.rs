//! The access matrix: what every kind of caller gets from everything that is served.
//!
//! `docs/ACCESS.md` holds the matrix; these tests read it there, run every cell over HTTP against a
//! real server and look at the database afterwards. A table, route or function without rows fails.
//! Then one rule at a time is taken away, and some cell must notice.

#![expect(clippy::print_stdout, reason = "the figures, and which cell notices which rule")]

mod drives;
mod endpoints;
mod matrix;
mod mutations;
mod realtime;
mod seed;
mod storage;
mod tables;
mod world;
