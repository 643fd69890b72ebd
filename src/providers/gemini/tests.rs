//! Every recorded run against what it should come to, and the plans as a whole.

mod recorded;
mod written;
