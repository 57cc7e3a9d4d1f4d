//! What agents can do, as clients are told.

/// One answer per feature; the field names in camel case are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a table of independent answers"
)]
pub struct Capabilities {
    /// Has a mode in which it plans only.
    pub plan_mode: bool,
    /// Asks for permission.
    pub permissions: bool,
    /// Asks questions.
    pub questions: bool,
    /// Reports tool calls.
    pub tool_calls: bool,
    /// Reports what tools returned.
    pub tool_results: bool,
    /// Answers with text.
    pub text_messages: bool,
    /// Takes images in prompts.
    pub images: bool,
    /// Takes files in prompts.
    pub file_attachments: bool,
    /// Reports the beginning and end of its own sessions.
    pub session_lifecycle: bool,
    /// Reports errors as events.
    pub error_events: bool,
    /// Shows its reasoning.
    pub reasoning: bool,
    /// Reports what it is doing.
    pub status: bool,
    /// Reports commands as such.
    pub command_execution: bool,
    /// Reports changed files as such.
    pub file_changes: bool,
    /// Uses MCP servers.
    pub mcp_tools: bool,
    /// Streams text piece by piece.
    pub streaming_deltas: bool,
    /// Announces items before their content.
    pub item_started: bool,
    /// One process for several sessions of several clients.
    pub shared_process: bool,
}

impl Capabilities {
    /// Text and tools, which every agent has.
    pub(crate) const BASIC: Self = Self {
        plan_mode: false,
        permissions: false,
        questions: false,
        tool_calls: true,
        tool_results: true,
        text_messages: true,
        images: false,
        file_attachments: false,
        session_lifecycle: false,
        error_events: false,
        reasoning: false,
        status: false,
        command_execution: false,
        file_changes: false,
        mcp_tools: false,
        streaming_deltas: false,
        item_started: false,
        shared_process: false,
    };

    /// Every feature but sharing a process.
    pub(crate) const ALL: Self = Self {
        plan_mode: true,
        permissions: true,
        questions: true,
        images: true,
        file_attachments: true,
        session_lifecycle: true,
        error_events: true,
        reasoning: true,
        status: true,
        command_execution: true,
        file_changes: true,
        mcp_tools: true,
        streaming_deltas: true,
        item_started: true,
        ..Self::BASIC
    };

    /// Names on the wire and answers, in the order of the wire.
    pub const fn entries(&self) -> [(&'static str, bool); 18] {
        [
            ("planMode", self.plan_mode),
            ("permissions", self.permissions),
            ("questions", self.questions),
            ("toolCalls", self.tool_calls),
            ("toolResults", self.tool_results),
            ("textMessages", self.text_messages),
            ("images", self.images),
            ("fileAttachments", self.file_attachments),
            ("sessionLifecycle", self.session_lifecycle),
            ("errorEvents", self.error_events),
            ("reasoning", self.reasoning),
            ("status", self.status),
            ("commandExecution", self.command_execution),
            ("fileChanges", self.file_changes),
            ("mcpTools", self.mcp_tools),
            ("streamingDeltas", self.streaming_deltas),
            ("itemStarted", self.item_started),
            ("sharedProcess", self.shared_process),
        ]
    }
}
