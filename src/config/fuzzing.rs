//! What a fuzzer sees of the decoders (`--cfg fuzzing` only).

use std::collections::BTreeSet;

use super::{Environment, SavedConfig, env_file};

/// Reads the bytes of `gateway.json`, and writes what was read.
pub fn saved_config(bytes: &[u8]) -> Option<(SavedConfig, Vec<u8>)> {
    let config = SavedConfig::parse(bytes).ok()?;
    let written = config.to_bytes();
    Some((config, written))
}

/// Lays the text of an env file over an empty environment; the names, or what is wrong.
pub fn env_file(contents: &str) -> Result<BTreeSet<String>, String> {
    env_file::lay(contents, &mut Environment::default())
}
