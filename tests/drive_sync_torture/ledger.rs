//! What was written by anybody, and what of it has to be somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use panorama_gateway::drive_sync::model::Sha256 as Hash;
use sha2::{Digest, Sha256};

pub(crate) fn hash(bytes: &[u8]) -> String {
    Hash(Sha256::digest(bytes).into()).hex()
}

/// Shared by everybody who writes.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    written: u64,
    /// Hashes of contents that have to be somewhere.
    owed: BTreeSet<String>,
    /// What each content was, for the report of a failure.
    what: BTreeMap<String, String>,
}

impl Ledger {
    /// A number that nobody had before.
    pub(crate) fn number(&self) -> u64 {
        let mut book = self.0.lock().unwrap();
        book.written += 1;
        book.written
    }

    /// A content that nobody has written before: a line, so many times.
    pub(crate) fn content(&self, who: &str, place: &str, times: usize) -> Vec<u8> {
        let text = format!("{who} wrote {place} as number {}\n", self.number());
        let bytes = text.repeat(times).into_bytes();
        self.0.lock().unwrap().what.insert(hash(&bytes), text);
        bytes
    }

    /// It stands at its place: from now on it must not get lost.
    pub(crate) fn owes(&self, bytes: &[u8]) {
        let hash = hash(bytes);
        let mut book = self.0.lock().unwrap();
        book.what.entry(hash.clone()).or_insert_with(|| {
            let last = bytes.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty());
            format!("{}, appended", String::from_utf8_lossy(last.unwrap_or_default()))
        });
        book.owed.insert(hash);
    }

    /// Somebody has it before his eyes and puts something else in its place.
    pub(crate) fn replaces(&self, bytes: &[u8]) {
        self.replaces_hash(&hash(bytes));
    }

    pub(crate) fn replaces_hash(&self, hash: &str) {
        self.0.lock().unwrap().owed.remove(hash);
    }

    pub(crate) fn written(&self) -> u64 {
        self.0.lock().unwrap().written
    }

    pub(crate) fn owed(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().owed.clone()
    }

    pub(crate) fn what(&self, hash: &str) -> String {
        let book = self.0.lock().unwrap();
        book.what.get(hash).map_or("part of a content", |what| what.trim_end()).to_owned()
    }
}
