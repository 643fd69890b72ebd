//! Faults put in on purpose, to show that the simulator would find them.
//!
//! Outside tests [`planted`] is a constant `false`, and nothing of this is left in the binary.

/// A fault that can be switched on in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The planner takes the server's file although the disk's was edited too.
    TakesRemoteOverEdit,
    /// The planner sends a file back that the server's side deleted, unedited as it is.
    BringsBackDeleted,
    /// The planner takes two equal files for a conflict.
    EqualIsConflict,
    /// The planner takes what it cannot read for nothing.
    OpaqueIsNothing,
    /// The base is written before the disk or the server has it.
    BaseFirst,
    /// What was sent before the answer was lost is sent once more under another operation id.
    ForgetsIntent,
    /// Operation ids are made of the path alone.
    OperationIdOfPath,
    /// A change of the feed is dropped when it is the last one of its page.
    DropsLastOfPage,
    /// The root is not compared with the one of the last time.
    IgnoresRoot,
    /// The disk replaces a file without a look at what it displaced.
    InstallUnverified,
    /// The disk puts a download in its place before its bytes are durable.
    InstallUnsynced,
    /// The disk follows symbolic links.
    FollowsLinks,
    /// The disk takes a download for whole when it is not.
    FinishUnverified,
    /// The disk removes a folder with what is on the ignore list inside it.
    RemovesIgnored,
    /// The server is sent a file that changed while it was read.
    SendUnchecked,
    /// The server takes the same operation twice.
    TakesTwice,
    /// The server deletes whatever version it has.
    DeletesAnyVersion,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this fault is on.
#[cfg(test)]
pub(in crate::drive_sync) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never.
#[cfg(not(test))]
#[expect(dead_code, reason = "asked where a fault can be planted")]
pub(in crate::drive_sync) const fn planted(_: Bug) -> bool {
    false
}

/// Switches this fault on, in this thread, or all off.
#[cfg(test)]
pub(in crate::drive_sync) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
