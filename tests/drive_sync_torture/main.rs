//! Drives on real disks, kept by the real binary, under all that disks and people do to them.
//!
//! Whatever happens, in the end every machine and the server have the same, and every content that
//! anybody wrote is somewhere: see [`judge::Violation`].

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a drive that is not kept in step fails; it measures real time"
)]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;

#[path = "../drive_sync/vm.rs"]
mod vm;

mod editors;
mod few_watches;
mod full_disk;
mod judge;
mod kills;
mod ledger;
mod many_files;
mod people;
mod proof;
mod repository;
mod team;
