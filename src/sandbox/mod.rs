//! The embedded local control plane: the backend's contract on SQLite, in this binary.

mod caller;
pub mod rest;
pub mod store;

pub use caller::Caller;
