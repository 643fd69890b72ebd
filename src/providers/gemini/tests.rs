//! Every recorded run against what it should come to, and the plans as a whole.

pub(super) mod recorded;
mod written;
