//! Two-way mirror of a team's drives in a VM.

pub mod wire;
