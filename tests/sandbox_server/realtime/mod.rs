//! Realtime over real sockets: who hears of which change, and how sockets and channels end.

mod changes;
mod ends;
pub(crate) mod socket;
