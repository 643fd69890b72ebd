//! What people read: every help text, every error of usage, and the messages of commands, from the
//! real binary.

mod help;
mod machine;
mod messages;
mod usage;
