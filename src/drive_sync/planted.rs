//! Faults put in on purpose, to show that the simulator would find them.
//!
//! Outside tests [`planted`] is a constant `false`, and nothing of this is left in the binary.

/// A fault that can be switched on in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "some are planted in what only tests have"))]
pub(in crate::drive_sync) enum Bug {
    /// The planner takes the server's file although the disk's was edited too.
    TakesRemoteOverEdit,
    /// The planner deletes an edited file because the server's is gone.
    DeletesEdited,
    /// The planner fetches a file again that the disk's side deleted.
    BringsBackDeleted,
    /// The planner takes two equal files for a conflict.
    EqualIsConflict,
    /// The engine stays at rest whatever it sees on the disk.
    StaysAtRest,
    /// The base is written before the disk has it.
    BaseFirst,
    /// Nobody asks again for what was sent and not answered.
    ForgetsIntents,
    /// The operation id of an upload is made of its path.
    OperationIdOfPath,
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
pub(in crate::drive_sync) const fn planted(_: Bug) -> bool {
    false
}

/// Switches this fault on, in this thread, or all off.
#[cfg(test)]
pub(in crate::drive_sync) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
