//! The statuses that a client may be told.

macro_rules! statuses {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// A status of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Status {$(
            $(#[doc = $doc])*
            $name,
        )*}

        impl Status {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it is on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => concat!("SANDBOX_", $text),)* }
            }
        }
    };
}

statuses! {
    /// The client broke the protocol; the connection ends.
    Error = "ERROR";
    Creating = "CREATING";
    /// It may be used. Clients take their reconnecting from here.
    Running = "RUNNING";
    NotFound = "NOT_FOUND";
    CreationError = "CREATION_ERROR";
    ExecutionError = "EXECUTION_ERROR";
    ExecutionUnsupportedLanguageError = "EXECUTION_UNSUPPORTED_LANGUAGE_ERROR";
    ExecutionRunning = "EXECUTION_RUNNING";
    ExecutionDone = "EXECUTION_DONE";
    /// Another connection that is alive has it.
    InUse = "IN_USE";
    StdinError = "STDIN_ERROR";
    ExecutionForceKilled = "EXECUTION_FORCE_KILLED";
    ExecutionForceKillError = "EXECUTION_FORCE_KILL_ERROR";
    Checkpointing = "CHECKPOINTING";
    Checkpointed = "CHECKPOINTED";
    CheckpointError = "CHECKPOINT_ERROR";
    Restoring = "RESTORING";
    RestoreError = "RESTORE_ERROR";
    /// A checkpoint is refused because of it.
    ExecutionInProgressError = "EXECUTION_IN_PROGRESS_ERROR";
    FilesystemSnapshotCreating = "FILESYSTEM_SNAPSHOT_CREATING";
    FilesystemSnapshotCreated = "FILESYSTEM_SNAPSHOT_CREATED";
    FilesystemSnapshotError = "FILESYSTEM_SNAPSHOT_ERROR";
    Deleting = "DELETING";
    Deleted = "DELETED";
    LockAcquiring = "LOCK_ACQUIRING";
    LockAcquired = "LOCK_ACQUIRED";
    LockReleaseRequested = "LOCK_RELEASE_REQUESTED";
    LockRenewalError = "LOCK_RENEWAL_ERROR";
    LockReleasing = "LOCK_RELEASING";
    LockReleased = "LOCK_RELEASED";
    Killing = "KILLING";
    Killed = "KILLED";
    KillError = "KILL_ERROR";
    PermissionDenialError = "PERMISSION_DENIAL_ERROR";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_34_and_each_has_its_name() {
        let names: std::collections::HashSet<_> =
            Status::ALL.iter().map(|status| status.as_str()).collect();
        assert_eq!(names.len(), 34);
        assert!(names.iter().all(|name| name.starts_with("SANDBOX_")));
    }
}
