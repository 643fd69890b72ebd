//! `start`: wiring, supervisors, shutdown order, status socket.

pub mod status;
